"""Probabilities as integers, so that sums of them are exact in any order.

Called by the sampler and by logprobs. A token's weight is floor(2**44 * exp(x - max x)). Integer
addition is associative: prefix sums and totals come out equal whichever way a device splits the
work, so a row's result cannot depend on its neighbours. Tokens less likely than the likeliest by
2**-44 get weight 0; all of them together weigh less than 2**-25 of a vocabulary of 2**19.

Shape letters: G rows of a group, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WEIGHT_BITS = 44
_NEGLIGIBLE = -64.0  # exp of it is far below 2**-44
MAX_WEIGHT = 1 << _WEIGHT_BITS
MAX_VOCAB_SIZE = 1 << (62 - _WEIGHT_BITS + 1)  # a total must stay below 2**63


def integer_weights(x_GV: Tensor, peak_G: Tensor, temperature_G: Tensor | None = None) -> Tensor:
    """int64 weights of exp((x - peak) / temperature). The peak is the row's maximum.

    Rows whose peak is not finite get arbitrary weights.
    """
    assert x_GV.shape[1] <= MAX_VOCAB_SIZE
    exponent_GV = x_GV.double().sub_(peak_G.double()[:, None])
    if temperature_G is not None:
        exponent_GV.div_(temperature_G[:, None])
    exponent_GV.clamp_(min=_NEGLIGIBLE)  # exp is ten times slower where it underflows
    return _exp(exponent_GV).mul_(MAX_WEIGHT).long()


def log_total(total: int) -> float:
    """log of the sum of exp(x - peak), from the sum of the weights."""
    return math.log(total) - _WEIGHT_BITS * math.log(2.0)


def rows_per_group(vocab_size: int, device: torch.device) -> int:
    """How many rows to treat at once: bounds memory, and on a CPU stays near the cache."""
    elements = 1 << 19 if device.type == "cpu" else 1 << 25
    return max(1, elements // vocab_size)


def _exp(x_GV: Tensor) -> Tensor:
    """exp in place. Row by row on a CPU, where the vectorised loop may treat the last elements of
    its range by another routine, which can differ in the last bit."""
    if x_GV.device.type != "cpu":
        return x_GV.exp_()
    for x_V in x_GV:
        x_V.exp_()
    return x_GV
