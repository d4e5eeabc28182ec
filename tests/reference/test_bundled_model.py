"""The bundled model says what transformers says, with either kind of kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from novacron.demo import bundled_model_path
from novacron.engine.tokenization import Tokenizer
from novacron.testing.reference import Engine, Judge, KernelChoice

PROMPTS = (
    "Hello!",
    "The capital of France is",
    "Write one sentence about the sea. " * 8,
)


@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_greedy_tokens(kernels: KernelChoice, judge: Callable[[Path], Judge]) -> None:
    folder = bundled_model_path()
    tokenizer = Tokenizer.load(folder)
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    engine = Engine(folder, torch.device("cpu"), kernels=kernels)
    found = engine.greedy(prompts, 32)
    for prompt, generation in zip(prompts, found, strict=True):
        assert generation.token_ids == judge(folder).greedy(prompt, 32)
