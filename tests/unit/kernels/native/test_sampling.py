"""Against torch, which defines the rules; tests/unit/runner/test_sampler.py is about those."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch

from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.sampling import NativeChoose
from novacron.kernels.table import Draw
from novacron.runner.sampler import choose_with_torch


def make_draws(num_rows: int, numbers: Random) -> list[Draw]:
    return [
        Draw(
            temperature=numbers.choice([0.0, 0.05, 0.7, 1.0, 4.0]),
            top_p=numbers.choice([1.0, 0.999, 0.9, 0.3, 1e-9]),
            min_p=numbers.choice([0.0, 0.0, 1e-7, 0.05, 1.0]),
            top_k=numbers.choice([0, -1, 1, 2, 40, 300, 10**6]),
            seed=numbers.randrange(2**64),
            position=numbers.randrange(10**6),
        )
        for _ in range(num_rows)
    ]


@pytest.mark.parametrize(
    ("num_rows", "vocab_size", "spread"),
    [(100, 3, 1.0), (300, 517, 12.0), (50, 517, 0.0), (10, 30_001, 9.0)],
)
def test_the_same_tokens_as_torch(
    context: NativeContext, num_rows: int, vocab_size: int, spread: float
) -> None:
    torch.manual_seed(vocab_size)
    logits = torch.randn(num_rows, vocab_size) * spread
    logits[::2] = (logits[::2] * 8).round() / 8  # many equals
    logits[::3, ::5] = -math.inf
    logits[:, 0] = 0.0
    draws = make_draws(num_rows, Random(vocab_size))
    assert NativeChoose(context)(logits, draws) == choose_with_torch(logits, draws)


def test_rows_far_apart_in_memory(context: NativeContext) -> None:
    wide = torch.randn(6, 100)
    draws = make_draws(6, Random(0))
    choose = NativeChoose(context)
    assert choose(wide[:, :70], draws) == choose(wide[:, :70].contiguous(), draws)


def test_shares_of_threads_change_nothing(context: NativeContext) -> None:
    logits, draws = torch.randn(60, 5000), make_draws(60, Random(1))
    other = NativeContext(1 if context.num_threads > 1 else 3, context.level)
    assert NativeChoose(context)(logits, draws) == NativeChoose(other)(logits, draws)
