"""Rotary position embeddings (RoFormer, 2104.09864) and the ways to stretch them.

The frequencies of a model are chosen once, for the longest context it is loaded for, and hold for
every position. So a block of keys means the same in every request, short or long, which prefix
caching and batch invariance need. For dynamic and longrope scaling this means: loaded for a context
within the original one, the model computes plain (short) RoPE; loaded for more, the stretched one
for short prompts too. transformers switches by the length of the batch instead.

Shapes: P positions, F frequencies: one for each pair of dimensions of a head that turns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from novacron.models.decoder_config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeConfig,
    YarnScaling,
)


class Angles(NamedTuple):
    """Cosine and sine of every position's angles."""

    cos_PF: Tensor
    sin_PF: Tensor


def rope_angles(
    config: RopeConfig, max_model_len: int, *, dtype: torch.dtype, device: torch.device
) -> Angles:
    """For contexts up to `max_model_len`."""
    frequencies_F, amplitude = rope_frequencies(config, max_model_len)
    positions_P = torch.arange(max_model_len, dtype=torch.float32)
    angles_PF = positions_P[:, None] * frequencies_F
    cos_PF, sin_PF = angles_PF.cos() * amplitude, angles_PF.sin() * amplitude
    return Angles(cos_PF.to(device, dtype), sin_PF.to(device, dtype))


def rope_frequencies(config: RopeConfig, max_model_len: int) -> tuple[Tensor, float]:
    """Angle per position of each pair of dimensions, and a factor on cos and sin."""
    scaling = config.scaling
    plain = _plain_frequencies(config.theta, config.rotary_dim)
    match scaling:
        case None:
            return plain, 1.0
        case LinearScaling():
            return plain / scaling.factor, 1.0
        case DynamicScaling():
            return _dynamic_frequencies(config, scaling, max_model_len), 1.0
        case YarnScaling():
            return _yarn_frequencies(config, scaling), scaling.attention_factor
        case LongRopeScaling():
            is_long = max_model_len > scaling.original_max_position
            divisors = scaling.long_factor if is_long else scaling.short_factor
            return plain / torch.tensor(divisors), scaling.attention_factor
        case Llama3Scaling():
            return _llama3_frequencies(plain, scaling), 1.0


def _plain_frequencies(theta: float, rotary_dim: int) -> Tensor:
    exponents_F = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
    return 1.0 / theta**exponents_F


def _dynamic_frequencies(config: RopeConfig, scaling: DynamicScaling, max_model_len: int) -> Tensor:
    length = max(max_model_len, scaling.max_position)
    stretch = scaling.factor * length / scaling.max_position - (scaling.factor - 1)
    dim = config.rotary_dim
    return _plain_frequencies(config.theta * stretch ** (dim / (dim - 2)), dim)


def _yarn_frequencies(config: RopeConfig, scaling: YarnScaling) -> Tensor:
    """Frequencies that turn more than `beta_fast` times within the original context are kept,
    those that turn less than `beta_slow` times divided by the factor."""
    dim = config.rotary_dim
    plain = _plain_frequencies(config.theta, dim)

    def dimension_turning(turns: float) -> float:
        wavelength = scaling.original_max_position / turns
        return dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.theta))

    low, high = dimension_turning(scaling.beta_fast), dimension_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001
    slowness_F = ((torch.arange(dim // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
    return plain / scaling.factor * slowness_F + plain * (1 - slowness_F)


def _llama3_frequencies(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    turns_F = scaling.original_max_position * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep_F = ((turns_F - low) / (high - low)).clamp(0, 1)
    return plain / scaling.factor * (1 - keep_F) + plain * keep_F
