"""Every family computes what transformers computes: alone or batched, whole or chunked, cold or
cached, and past the sliding window (24 tokens in the families that have one)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from novacron.testing.reference import Engine, Judge, KernelChoice, load_decoder, logits_in_chunks
from novacron.testing.tiny_models import FAMILIES, VOCAB_SIZE

ALL = (*FAMILIES, "gemma3_multimodal")
NUM_NEW = 64


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(5, VOCAB_SIZE), k=num_tokens)


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize(
    "chunks", [[70], [20, 50], [33, 1, 1, 35], [1] * 70], ids=["whole", "two", "uneven", "single"]
)
def test_logits(
    kernels: KernelChoice,
    family: str,
    chunks: list[int],
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    device: torch.device,
) -> None:
    folder, prompt = checkpoint(family), prompt_of(70)
    decoder = load_decoder(folder, device, dtype=torch.float32, kernels=kernels)
    found = logits_in_chunks(decoder, prompt, chunks, max_model_len=512)
    torch.testing.assert_close(found, judge(folder).logits(prompt), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("family", ALL)
def test_greedy_tokens(
    kernels: KernelChoice,
    family: str,
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    device: torch.device,
) -> None:
    folder = checkpoint(family)
    prompts = [prompt_of(length, seed=length) for length in (3, 60, 17, 33)]
    expected = [judge(folder).greedy(prompt, NUM_NEW) for prompt in prompts]

    engine = Engine(folder, device, kernels=kernels)
    cold = engine.greedy(prompts[1:2], NUM_NEW)[0]
    assert (cold.token_ids, cold.num_cached_tokens) == (expected[1], 0)

    batched = engine.greedy(prompts, NUM_NEW)
    assert [generation.token_ids for generation in batched] == expected
    assert batched[1].num_cached_tokens == 56

    chunked = Engine(folder, device, kernels=kernels, max_num_batched_tokens=16).greedy(
        prompts, NUM_NEW
    )
    assert [generation.token_ids for generation in chunked] == expected

    crowded = Engine(
        folder, device, kernels=kernels, num_blocks=32
    )  # too few blocks for all four at once
    preempted = crowded.greedy(prompts, NUM_NEW)
    assert [generation.token_ids for generation in preempted] == expected
    assert crowded.num_preemptions > 0
