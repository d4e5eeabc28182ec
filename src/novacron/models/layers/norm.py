"""Root mean square norm (1910.07467)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from novacron.kernels.table import Kernels
from novacron.models.weight_slots import WeightSlot


class RMSNorm(nn.Module):
    """With `offset`, the checkpoint holds weight - 1, and the norm is computed in float32."""

    def __init__(self, size: int, eps: float, kernels: Kernels, *, offset: bool) -> None:
        super().__init__()
        self.eps = eps
        self.offset = 1.0 if offset else 0.0
        self.norm = kernels.rms_norm
        dtype = torch.float32 if offset else None
        self.weight = nn.Parameter(torch.empty(size, dtype=dtype), requires_grad=False)

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """The norm of `x`, or `add_to` with that added to it in place."""
        return self.norm(x, self.weight, self.eps, add_to)

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        shape = tuple(self.weight.shape)
        index = (slice(None),)
        yield WeightSlot(f"{prefix}.weight", self.weight.data, shape, index, self.offset)
