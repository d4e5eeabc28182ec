"""Our engine: an LLM whose step loop the adapter drives, to see when each token comes."""

from __future__ import annotations

import gc
import itertools
from importlib import metadata
from pathlib import Path

from benchmarks.peers.adapters.adapter import Engine, Limits, Prompt, Refused, run
from benchmarks.peers.adapters.settings import SETTINGS
from novacron import LLM
from novacron.bench.batch import Batch, BatchTimes
from novacron.bench.engine_alone import run_batch
from novacron.bench.physical_limits import model_traffic
from novacron.errors import NovaCronError

_SPARE = 1.25  # blocks are not filled to the last token, and prompts of before stay cached


class NovaCron:
    def __init__(self, llm: LLM) -> None:
        self._core = llm._core
        self._ids = itertools.count()
        gc.collect()
        gc.freeze()  # as the engine process does

    def prefill(self, prompt: Prompt) -> float:
        times = self._run([prompt], 1)
        return times.token_times_s[0][0] - times.started_s

    def decode(self, prompts: list[Prompt], num_tokens: int) -> tuple[int, float]:
        streams = self._run(prompts, num_tokens + 1).token_times_s
        start_s = max(times[0] for times in streams)
        end_s = min(times[-1] for times in streams)
        tokens = sum(start_s < time_s <= end_s for times in streams for time_s in times)
        return tokens, end_s - start_s

    def _run(self, prompts: list[Prompt], max_tokens: int) -> BatchTimes:
        batch = Batch(next(self._ids), tuple(map(tuple, prompts)), max_tokens)
        times = run_batch(self._core, batch)
        if not all(times.token_times_s):
            raise RuntimeError("the engine gave no token")
        return times


class NovaCronAdapter:
    name = "novacron"

    def prepare(self, folder: Path, precision: str, cache: Path) -> None:
        """It reads the folder as it is, and quantises while loading."""

    def load(self, folder: Path, precision: str, cache: Path, limits: Limits) -> Engine:
        traffic = model_traffic(folder)
        if traffic is None:
            raise Refused(f"{folder} holds no model")
        kv_tokens = max(limits.tokens, limits.tokens_per_stream) + 64 * limits.streams
        settings = {
            "num_threads": limits.threads,
            "max_model_len": limits.tokens_per_stream,
            "max_num_seqs": limits.streams,
            "kv_cache_memory": int(traffic.kv_bytes_per_token * kv_tokens * _SPARE),
            "kv_ram_size": 0,
            "kv_disk_size": 0,  # an earlier run had the same prompts
            **SETTINGS[precision],
            **limits.options,
        }
        try:
            return NovaCron(LLM(str(folder), **settings))
        except (NovaCronError, TypeError, ValueError) as error:
            raise Refused(str(error)) from error

    def version(self) -> str:
        return metadata.version("novacron")


if __name__ == "__main__":
    run(NovaCronAdapter())
