"""Against the formulas; tests/reference compares with transformers."""

from __future__ import annotations

import math

import torch

from novacron.models.decoder_config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeConfig,
    YarnScaling,
)
from novacron.models.layers.rope import rope_angles, rope_frequencies

DIM, THETA = 8, 10000.0
PLAIN = [THETA ** (-i / DIM) for i in range(0, DIM, 2)]


def frequencies(scaling: object, max_model_len: int = 64) -> list[float]:
    config = RopeConfig(theta=THETA, rotary_dim=DIM, scaling=scaling)  # type: ignore[arg-type]
    return rope_frequencies(config, max_model_len)[0].tolist()


def close(found: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_plain_and_linear() -> None:
    close(frequencies(None), PLAIN)
    close(frequencies(LinearScaling(4.0)), [value / 4 for value in PLAIN])


def test_dynamic_is_plain_up_to_the_original_context() -> None:
    scaling = DynamicScaling(2.0, 64)
    close(frequencies(scaling, 64), PLAIN)
    close(frequencies(scaling, 10), PLAIN)
    base = THETA * (2.0 * 128 / 64 - 1) ** (DIM / (DIM - 2))
    close(frequencies(scaling, 128), [base ** (-i / DIM) for i in range(0, DIM, 2)])


def test_yarn_keeps_fast_frequencies_and_stretches_slow_ones() -> None:
    scaling = YarnScaling(4.0, 4096, 1.1, beta_fast=32.0, beta_slow=1.0, truncate=True)
    found = frequencies(scaling)
    close(found[:1], PLAIN[:1])
    close(found[-1:], [PLAIN[-1] / 4])


def test_longrope_chooses_by_the_longest_context() -> None:
    scaling = LongRopeScaling((1.0,) * 4, (2.0, 3.0, 4.0, 5.0), 64, 1.2)
    close(frequencies(scaling, 64), PLAIN)
    close(frequencies(scaling, 65), [a / b for a, b in zip(PLAIN, (2, 3, 4, 5), strict=True)])


def test_llama3_changes_only_long_wavelengths() -> None:
    found = frequencies(Llama3Scaling(8.0, 1.0, 4.0, 128))
    turns = [128 * value / (2 * math.pi) for value in PLAIN]
    assert turns[0] > 4 > turns[1] > 1 > turns[2]
    close(found[:1], PLAIN[:1])
    assert PLAIN[1] / 8 < found[1] < PLAIN[1]
    close(found[2:], [value / 8 for value in PLAIN[2:]])


def test_angles_scale_by_the_attention_factor() -> None:
    scaling = LongRopeScaling((1.0,) * 4, (1.0,) * 4, 64, 1.5)
    config = RopeConfig(theta=THETA, rotary_dim=DIM, scaling=scaling)
    cos, sin = rope_angles(config, 64, dtype=torch.float32, device=torch.device("cpu"))
    assert cos.shape == sin.shape == (64, DIM // 2)
    close(cos[0].tolist(), [1.5] * 4)
    close(sin[3].tolist(), [1.5 * math.sin(3 * value) for value in PLAIN])
