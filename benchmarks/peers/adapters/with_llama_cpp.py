"""llama.cpp, through llama-cpp-python's binding of its C interface."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np

from benchmarks.peers.adapters.adapter import Engine, Limits, Prompt, Refused, run
from benchmarks.peers.adapters.gguf_file import write_gguf

FILE_TYPES = {
    "bf16": None,  # as it is written
    "int8": lib.LLAMA_FTYPE_MOSTLY_Q8_0,
    "int4": lib.LLAMA_FTYPE_MOSTLY_Q4_0,
}


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _quiet(level: int, text: bytes, user_data: object) -> None:
    if level >= 4:  # errors
        print(text.decode(errors="replace"), end="")


class LlamaCpp:
    """Contexts are made for as many streams as are asked for; the last one is kept."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._limits = limits
        self._model = lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()
        )
        if not self._model:
            raise Refused(f"llama.cpp could not load {path.name}")
        vocabulary = lib.llama_model_get_vocab(self._model)
        self._vocab_size = lib.llama_vocab_n_tokens(vocabulary)
        self._context: Any = None
        self._memory: Any = None
        self._batch: Any = None
        self._batch_size = 0
        self._num_streams = 0
        self._held: list[Prompt] = []  # prompts whose keys and values the context has
        self._last: list[int] = []  # the token after each of them

    def prefill(self, prompt: Prompt) -> float:
        self._make_context(1)
        lib.llama_memory_clear(self._memory, True)
        self._held = []
        started_s = time.perf_counter()
        self._feed(prompt, 0)
        self._best(-1)
        return time.perf_counter() - started_s

    def decode(self, prompts: list[Prompt], num_tokens: int) -> tuple[int, float]:
        self._make_context(len(prompts))
        if self._held != prompts:
            lib.llama_memory_clear(self._memory, True)
            self._last = []
            for stream, prompt in enumerate(prompts):
                self._feed(prompt, stream)
                self._last.append(self._best(-1))
            self._held = prompts
        for stream, prompt in enumerate(prompts):
            lib.llama_memory_seq_rm(self._memory, stream, len(prompt), -1)
        tokens = list(self._last)
        started_s = time.perf_counter()
        for step in range(num_tokens):
            self._fill([(token, len(prompts[s]) + step, s, True) for s, token in enumerate(tokens)])
            tokens = [self._best(stream) for stream in range(len(prompts))]
        return num_tokens * len(prompts), time.perf_counter() - started_s

    def _make_context(self, num_streams: int) -> None:
        if self._context is not None and self._num_streams == num_streams:
            return
        if self._context is not None:
            lib.llama_batch_free(self._batch)
            lib.llama_free(self._context)
        longest = self._limits.tokens_per_stream if num_streams == 1 else 0
        total = longest or self._limits.tokens
        params = lib.llama_context_default_params()
        params.n_ctx = -(-total // 256) * 256 + 256 * num_streams
        params.n_seq_max = num_streams
        params.n_threads = params.n_threads_batch = self._limits.threads
        params.no_perf = True
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp could not make a context for {num_streams} streams")
        self._memory = lib.llama_get_memory(self._context)
        self._batch_size = lib.llama_n_batch(self._context)
        self._batch = lib.llama_batch_init(self._batch_size, 0, 1)
        self._num_streams = num_streams
        self._held = []

    def _feed(self, prompt: Prompt, stream: int) -> None:
        """A whole prompt; its last token's logits are kept."""
        for start in range(0, len(prompt), self._batch_size):
            part = prompt[start : start + self._batch_size]
            entries = [
                (token, start + place, stream, start + place == len(prompt) - 1)
                for place, token in enumerate(part)
            ]
            self._fill(entries)

    def _fill(self, entries: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(entries)
        for row, (token, position, stream, with_logits) in enumerate(entries):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = stream
            batch.logits[row] = with_logits
        code = lib.llama_decode(self._context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")

    def _best(self, row: int) -> int:
        logits = lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())


class LlamaCppAdapter:
    name = "llama.cpp"

    def prepare(self, folder: Path, precision: str, cache: Path) -> None:
        """GGUF in bfloat16 by our own writer, then llama.cpp's own quantisation of it."""
        source = _file(folder, "bf16", cache)
        if not source.exists():
            write_gguf(folder, source)
        target = _file(folder, precision, cache)
        if target.exists():
            return
        params = lib.llama_model_quantize_default_params()
        params.ftype = FILE_TYPES[precision]
        partial = target.with_suffix(".partial")
        code = lib.llama_model_quantize(
            str(source).encode(), str(partial).encode(), ctypes.byref(params)
        )
        if code != 0:
            raise Refused(f"llama_model_quantize returned {code}")
        partial.rename(target)

    def load(self, folder: Path, precision: str, cache: Path, limits: Limits) -> Engine:
        return LlamaCpp(_file(folder, precision, cache), limits)

    def version(self) -> str:
        return f"llama-cpp-python {lib.__version__}"


def _file(folder: Path, precision: str, cache: Path) -> Path:
    return cache / f"{folder.resolve().name}-{precision}.gguf"


if __name__ == "__main__":
    lib.llama_log_set(_quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    run(LlamaCppAdapter())
