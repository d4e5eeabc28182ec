"""Prefixes that are fetched, computed, or whichever the scheduler chooses: `python -m` this file.

An engine core without anything around it, with its own tiers. A prefix is computed once and stored,
then dropped from the device before each request that starts with it, so every request finds it in
the tier alone. Imports torch, as the rest of the bench must not.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from novacron.bench.cache_choice_job import MODES, ChoiceJob, Trial
from novacron.engine.build import build_core, load_executor
from novacron.engine.core import EngineCore
from novacron.records.cache_orders import ClearCache
from novacron.records.request import Request, SamplingParams
from novacron.scheduler.fetch_choice import FetchChoice

_STORING_S = 20.0  # at most
_PAUSE_S = 0.005


class ForcedChoice:
    """Implements FetchChoice around one, which hears of everything and is asked in mode "chosen"
    alone."""

    def __init__(self, inner: FetchChoice) -> None:
        self._inner = inner
        self.mode = "chosen"
        self.num_fetched = self.num_there = 0
        self.begin_step, self.end_step = inner.begin_step, inner.end_step
        self.see_load = inner.see_load

    def cut(self, chain: Sequence[int | None], num_more_tokens: int) -> int:
        if self.mode == "chosen":
            cut = self._inner.cut(chain, num_more_tokens)
        else:
            cut = len(chain) if self.mode == "fetch" else 0
        self.num_fetched, self.num_there = cut, len(chain)
        return cut


class Trials:
    def __init__(self, core: EngineCore, choice: ForcedChoice) -> None:
        self._core = core
        self._choice = choice
        self._num_requests = 0

    def run(self, prefix: tuple[int, ...], suffixes: Sequence[tuple[int, ...]]) -> Trial:
        first, *others = suffixes
        self._choice.mode = "compute"
        self._ask(prefix + first)
        self._settle()
        times: dict[str, list[float]] = {mode: [] for mode in MODES}
        fetched, there = [], []
        for turn in range(0, len(others) - len(MODES) + 1, len(MODES)):
            for place in range(len(MODES)):
                mode = MODES[(turn // len(MODES) + place) % len(MODES)]
                self._core.ask(ClearCache(levels=("device",)))
                self._choice.mode = mode
                self._choice.num_fetched = self._choice.num_there = 0
                times[mode].append(self._ask(prefix + others[turn + place]))
                if mode == "chosen":
                    fetched.append(self._choice.num_fetched)
                    there.append(self._choice.num_there)
                self._settle()
        return Trial(
            len(prefix), tuple(tuple(times[mode]) for mode in MODES), tuple(fetched), tuple(there)
        )

    def _ask(self, prompt: tuple[int, ...]) -> float:
        """Seconds to the first token, which is the only one."""
        self._num_requests += 1
        started_s = time.perf_counter()
        self._core.add(
            Request(
                request_id=str(self._num_requests),
                prompt_token_ids=prompt,
                sampling=SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, seed=0),
                arrival_time_s=time.monotonic(),
            )
        )
        while self._core.has_work:
            if any(output.new_token_ids for output in self._core.step()):
                break
        seconds = time.perf_counter() - started_s
        while self._core.has_work:
            self._core.step()
        return seconds

    def _settle(self) -> None:
        """Wait until all is stored, so that nobody stores while a request is timed."""
        end_s = time.perf_counter() + _STORING_S
        while self._core.awaits_block_news and time.perf_counter() < end_s:
            time.sleep(_PAUSE_S)
            self._core.take_block_news()


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChoiceJob)
    arguments = job.arguments
    config = arguments.config
    executor = load_executor(config, Path(arguments.model_path), lambda phase, fraction: None)
    forced: list[ForcedChoice] = []

    def force(inner: FetchChoice) -> FetchChoice:
        forced.append(ForcedChoice(inner))
        return forced[0]

    tokenizer_path = Path(config.model.tokenizer or arguments.model_path)
    core = build_core(config, executor, tokenizer_path, around_choice=force)
    gc.collect()
    gc.freeze()  # as the engine process does
    trials = Trials(core, forced[0])
    for prefix, suffixes in job.prompts:
        sys.stdout.buffer.write(msgspec.json.encode(trials.run(prefix, suffixes)) + b"\n")
        sys.stdout.buffer.flush()
    core.shutdown()


if __name__ == "__main__":
    main()
