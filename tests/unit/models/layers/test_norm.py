from __future__ import annotations

import torch

from novacron.kernels.table import TORCH_KERNELS
from novacron.models.layers.norm import RMSNorm


def test_an_offset_norm_keeps_its_weight_in_float32() -> None:
    norm = RMSNorm(8, 1e-6, TORCH_KERNELS, offset=True)
    (slot,) = norm.weight_slots("n")
    assert (slot.name, slot.shape, slot.offset) == ("n.weight", (8,), 1.0)
    assert norm.weight.dtype == torch.float32
    slot.target.fill_(0.5).add_(slot.offset)
    x = torch.randn(2, 8)
    torch.testing.assert_close(norm(x), x / x.square().mean(-1, keepdim=True).sqrt() * 1.5)
