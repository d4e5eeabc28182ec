"""On a GPU every family computes what transformers computes on CPU."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from novacron.testing.reference import Engine, Judge, load_decoder, logits_in_chunks
from novacron.testing.tiny_models import FAMILIES, VOCAB_SIZE, make_tiny_model

NUM_NEW = 64


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(5, VOCAB_SIZE), k=num_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits(family: str, device: torch.device, tmp_path: Path) -> None:
    folder, prompt = make_tiny_model(family, tmp_path), prompt_of(70)
    decoder = load_decoder(folder, device, dtype=torch.float32)
    expected = Judge(folder).logits(prompt)
    for chunks in ([70], [20, 50], [33, 1, 1, 35]):
        found = logits_in_chunks(decoder, prompt, chunks, max_model_len=512)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens(family: str, device: torch.device, tmp_path: Path) -> None:
    folder = make_tiny_model(family, tmp_path)
    prompts = [prompt_of(length, seed=length) for length in (3, 60, 17, 33)]
    judge = Judge(folder)
    expected = [judge.greedy(prompt, NUM_NEW) for prompt in prompts]
    for engine in (Engine(folder, device), Engine(folder, device, max_num_batched_tokens=16)):
        cold = engine.greedy(prompts, NUM_NEW)
        assert [generation.token_ids for generation in cold] == expected
        warm = engine.greedy(prompts, NUM_NEW)
        assert [generation.token_ids for generation in warm] == expected
        assert warm[1].num_cached_tokens == 56


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_precisions(dtype: str, device: torch.device, tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    prompts = [prompt_of(40, seed=seed) for seed in range(8)]
    generations = Engine(folder, device, dtype=dtype).greedy(prompts, 16)
    assert all(len(generation.token_ids) == 16 for generation in generations)
