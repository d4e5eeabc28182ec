"""Products with weights of whole numbers in plain torch: the reference for the native kernels.

Exact about what is rounded and how, and slow: every product makes float32 of all its weights.

Shapes: O outputs, I inputs, G groups of inputs, S inputs in a group; `...` rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.kernels.linear import Quantization, Rounded

_COUNTS_AS_ZERO = 1e-30
_VALUES_AT_ONCE = 2**20  # bounds the memory for those on their way


class TorchQuantizedLinear:
    """Keeps a rounded copy of `weight_OI`, and rounds inputs to int8. Implements Linear. Given what
    it is `rounded` to, the weight is not looked into."""

    def __init__(
        self, weight_OI: Tensor, quantization: Quantization, rounded: Rounded | None = None
    ) -> None:
        self._dtype = weight_OI.dtype
        self._num_inputs = weight_OI.shape[1]
        self._quantization = quantization
        if rounded is None:
            rounded = in_parts(partial(round_weights, quantization=quantization), weight_OI)
        self._scales_OG = rounded.scales_OG
        self._packed = rounded.values_OGS
        if quantization.bits == 4:
            self._packed = _pack_halves(rounded.values_OGS)

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor:
        values, scales = round_inputs(x, self._quantization.input_group_size)
        rounded = joined(values * scales.unsqueeze(-1), self._num_inputs)
        weight_OI = self._weights(slice(None))
        out = F.linear(rounded, weight_OI, None if bias is None else bias.float())
        if add_to is not None:
            return add_to.copy_(out.add_(add_to))
        return out.to(out_dtype or x.dtype)

    def rows(self, indices: Tensor) -> Tensor:
        return self._weights(indices).to(self._dtype)

    def _weights(self, outputs: Tensor | slice) -> Tensor:
        packed = self._packed[outputs]
        values = _unpack_halves(packed) if self._quantization.bits == 4 else packed
        return joined(values * self._scales_OG[outputs].float().unsqueeze(-1), self._num_inputs)


def in_parts(round_some: Callable[[Tensor], tuple[Tensor, Tensor]], weight_OI: Tensor) -> Rounded:
    """What `round_some` gives, values and scales, with memory for some rows at a time beside it."""
    rows = max(1, _VALUES_AT_ONCE // max(1, weight_OI.shape[1]))
    parts = [round_some(part) for part in torch.split(weight_OI, rows)]
    return Rounded(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def round_weights(weight_OI: Tensor, quantization: Quantization) -> tuple[Tensor, Tensor]:
    """Values as int8 [O, G, S], zero past the last input, and scales as bfloat16 [O, G].

    The largest weight of a group becomes 127 or -127 in int8. In int4 it becomes -8, the scale
    having the sign for that: so all sixteen values are used, as in llama.cpp's Q4_0 (MIT).
    """
    groups_OGS = grouped(weight_OI, quantization.group_size)
    if quantization.bits == 8:
        low, high = -127, 127
        scales_OG = groups_OGS.abs().amax(-1) / 127
    else:
        low, high = -8, 7
        largest = groups_OGS.abs().argmax(-1, keepdim=True)
        scales_OG = groups_OGS.gather(-1, largest).squeeze(-1) / -8
    scales_OG = _away_from_zero(scales_OG)
    divisors = torch.where(scales_OG == 0, 1.0, scales_OG).unsqueeze(-1)
    values_OGS = (groups_OGS / divisors).round_().clamp_(low, high).to(torch.int8)
    return values_OGS, scales_OG.to(torch.bfloat16)


def round_inputs(x: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Values from -127 to 127 [..., G, S] and scales [..., G], both float32. A group with a value
    that is not finite gets a scale that is not."""
    groups = grouped(x, group_size)
    largest = groups.abs().amax(-1)
    is_zero = largest < _COUNTS_AS_ZERO
    inverse = torch.where(is_zero, 0.0, torch.full_like(largest, 127) / largest)
    scales = torch.where(is_zero, 0.0, largest * (1 / 127))
    return (groups * inverse.unsqueeze(-1)).round_(), scales


def grouped(x: Tensor, group_size: int) -> Tensor:
    """[..., I] as float32 [..., G, S], the last group filled up with zeros."""
    padded = F.pad(x.float(), (0, -x.shape[-1] % group_size))
    return padded.view(*x.shape[:-1], -1, group_size)


def joined(groups: Tensor, num_inputs: int) -> Tensor:
    return groups.flatten(-2)[..., :num_inputs]


def _away_from_zero(x: Tensor) -> Tensor:
    """The nearest values in bfloat16 that are no smaller in size."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _pack_halves(values: Tensor) -> Tensor:
    return (values[..., ::2] & 0xF) | (values[..., 1::2] << 4)


def _unpack_halves(packed: Tensor) -> Tensor:
    return torch.stack(((packed << 4) >> 4, packed >> 4), -1).flatten(-2)
