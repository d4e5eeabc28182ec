from __future__ import annotations

import torch
from torch.nn import functional as F

from novacron.kernels.table import TORCH_KERNELS
from novacron.models.layers.feed_forward import FeedForward
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import ParallelGroup


def test_ranks_add_up() -> None:
    torch.manual_seed(0)
    weights = {
        "f.gate_proj.weight": torch.randn(8, 6),
        "f.up_proj.weight": torch.randn(8, 6),
        "f.down_proj.weight": torch.randn(6, 8),
    }
    x = torch.randn(3, 6)
    total = torch.zeros(3, 6)
    for rank in range(4):
        layer = FeedForward(
            6, 8, "silu", ParallelGroup(rank, 4), LocalCommunicator(), TORCH_KERNELS
        )
        for slot in layer.weight_slots("f"):
            slot.target.copy_(weights[slot.name][slot.index])
        total += layer(x)
    gate, up, down = weights.values()
    torch.testing.assert_close(total, (F.silu(x @ gate.T) * (x @ up.T)) @ down.T)
