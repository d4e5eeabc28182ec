"""Products with weights in e4m3 in plain torch: the reference for the native kernels.

Inputs are not rounded. Every product makes float32 of all its weights.

Shapes: O outputs, I inputs, G groups of inputs, S inputs in a group; `...` rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.kernels.linear import FLOAT8, Rounded
from novacron.kernels.quantized_linear import grouped, in_parts, joined

_LARGEST = 448.0


class TorchFloat8Linear:
    """Keeps a rounded copy of `weight_OI`. Implements Linear. Given what it is `rounded` to, the
    weight is not looked into."""

    def __init__(self, weight_OI: Tensor, rounded: Rounded | None = None) -> None:
        self._dtype = weight_OI.dtype
        self._num_inputs = weight_OI.shape[1]
        self._rounded = rounded or in_parts(round_to_float8, weight_OI)

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor:
        weight_OI = self._weights(slice(None))
        out = F.linear(x.float(), weight_OI, None if bias is None else bias.float())
        if add_to is not None:
            return add_to.copy_(out.add_(add_to))
        return out.to(out_dtype or x.dtype)

    def rows(self, indices: Tensor) -> Tensor:
        return self._weights(indices).to(self._dtype)

    def _weights(self, outputs: Tensor | slice) -> Tensor:
        values = self._rounded.values_OGS[outputs].float()
        return joined(values * self._rounded.scales_OG[outputs].unsqueeze(-1), self._num_inputs)


def round_to_float8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Values [O, G, S] and scales [O, G] as in Rounded. The largest weight of an output becomes 448
    or -448, and all its groups have the scale for that."""
    groups_OGS = grouped(weight_OI, FLOAT8.group_size)
    scales_O = groups_OGS.abs().amax((1, 2)) / _LARGEST
    divisors = torch.where(scales_O == 0, 1.0, scales_O).view(-1, 1, 1)
    values_OGS = (groups_OGS / divisors).clamp_(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn)
    return values_OGS, scales_O.unsqueeze(1).repeat(1, groups_OGS.shape[1])
