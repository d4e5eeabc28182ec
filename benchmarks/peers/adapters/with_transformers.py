"""transformers on PyTorch: a greedy loop over its model and cache, lighter than its generate()."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.peers.adapters.adapter import Engine, Limits, Prompt, Refused, run

DTYPES = {"bf16": torch.bfloat16}


class Transformers:
    def __init__(self, folder: Path, precision: str, limits: Limits) -> None:
        torch.set_num_threads(limits.threads)
        torch.set_grad_enabled(False)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[precision])
        self._held: list[Prompt] = []
        self._cache = DynamicCache()

    def prefill(self, prompt: Prompt) -> float:
        started_s = time.perf_counter()
        self._step(torch.tensor([prompt]), DynamicCache())
        return time.perf_counter() - started_s

    def decode(self, prompts: list[Prompt], num_tokens: int) -> tuple[int, float]:
        if self._held != prompts:
            self._cache = DynamicCache()
            self._first = self._step(torch.tensor(prompts), self._cache)
            self._held = prompts
        self._cache.crop(len(prompts[0]))
        tokens = self._first
        started_s = time.perf_counter()
        for _ in range(num_tokens):
            tokens = self._step(tokens, self._cache)
        return num_tokens * len(prompts), time.perf_counter() - started_s

    def _step(self, tokens: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """[streams, tokens] in, the next token of each stream as [streams, 1] out."""
        output = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        best: torch.Tensor = output.logits[:, -1:].argmax(dim=-1)
        return best


class TransformersAdapter:
    name = "transformers"

    def prepare(self, folder: Path, precision: str, cache: Path) -> None:
        """It reads the folder as it is."""

    def load(self, folder: Path, precision: str, cache: Path, limits: Limits) -> Engine:
        if precision not in DTYPES:
            raise Refused("transformers alone has no weights of 8 or 4 bits for CPU")
        return Transformers(folder, precision, limits)

    def version(self) -> str:
        return f"transformers {transformers.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    run(TransformersAdapter())
