"""OpenVINO GenAI: its continuous batching pipeline on CPU, driven step by step.

The folder is exported by optimum-intel and compressed by NNCF, with the settings that
`optimum-cli export openvino --weight-format` has by default.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openvino
import openvino_genai

from benchmarks.peers.adapters.adapter import Engine, Limits, Prompt, Refused, run

FORMATS = {"bf16": "fp16", "int8": "int8", "int4": "int4"}  # computed in bfloat16 where CPUs can
_CACHE_GB = 2


class OpenVino:
    def __init__(self, folder: Path, limits: Limits) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = _CACHE_GB
        scheduler.max_num_seqs = limits.streams
        scheduler.max_num_batched_tokens = 2048
        scheduler.enable_prefix_caching = True
        properties = {
            "INFERENCE_NUM_THREADS": limits.threads,
            "CACHE_DIR": str(folder / "compiled"),
            **limits.options,
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(folder), scheduler, "CPU", properties
        )
        self._ids = itertools.count()

    def prefill(self, prompt: Prompt) -> float:
        started_s = time.perf_counter()
        handle = self._add(prompt, 1)
        while not handle.can_read():
            self._pipeline.step()
        seconds = time.perf_counter() - started_s
        self._finish()
        return seconds

    def decode(self, prompts: list[Prompt], num_tokens: int) -> tuple[int, float]:
        handles = [self._add(prompt, num_tokens + 1 + len(prompts)) for prompt in prompts]
        waiting = set(range(len(handles)))
        while waiting:
            self._pipeline.step()
            waiting = {place for place in waiting if not handles[place].can_read()}
        for handle in handles:
            _read(handle)
        tokens = 0
        started_s = time.perf_counter()
        for _ in range(num_tokens):
            self._pipeline.step()
            tokens += sum(_read(handle) for handle in handles)
        seconds = time.perf_counter() - started_s
        for handle in handles:
            handle.cancel()
        self._finish()
        return tokens, seconds

    def _add(self, prompt: Prompt, num_tokens: int) -> openvino_genai.GenerationHandle:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = num_tokens
        config.ignore_eos = True
        config.do_sample = False
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        return self._pipeline.add_request(next(self._ids), ids, config)

    def _finish(self) -> None:
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()


def _read(handle: openvino_genai.GenerationHandle) -> int:
    """Number of tokens that came since the last reading."""
    if not handle.can_read():
        return 0
    return sum(len(output.generated_ids) for output in handle.read().values())


class OpenVinoAdapter:
    name = "openvino"

    def prepare(self, folder: Path, precision: str, cache: Path) -> None:
        target = _folder(folder, precision, cache)
        if target.exists():
            return
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [
            str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino",
            "--model", str(folder.resolve()),
            "--task", "text-generation-with-past",
            "--weight-format", FORMATS[precision],
            str(partial),
        ]  # fmt: skip
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise Refused(f"optimum-cli export openvino ended with {done.returncode}")
        partial.rename(target)

    def load(self, folder: Path, precision: str, cache: Path, limits: Limits) -> Engine:
        return OpenVino(_folder(folder, precision, cache), limits)

    def version(self) -> str:
        return f"openvino-genai {openvino_genai.__version__}"


def _folder(folder: Path, precision: str, cache: Path) -> Path:
    return cache / f"{folder.resolve().name}-{precision}-openvino"


if __name__ == "__main__":
    run(OpenVinoAdapter())
