"""What the watch takes from requests: slices of time with it and without, in one engine.

Two engines would not do: how the memory of a process happens to lie makes more of a difference than
what is looked for. Part of watched_engine: imports torch, as the rest of the bench must not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from novacron.bench.watch_job import SliceRates, Slices
from novacron.engine.core import EngineCore
from novacron.engine.watched_answers import WatchedAnswers
from novacron.executor.quality_watch import QualityWatch
from novacron.quality.watch import Turns
from novacron.records.request import Request

ANSWER_TOKENS = 256
_WARM_UP_ROUNDS = 4


@dataclass
class StandingTurns(Turns):
    """Those of an engine that is never idle, by a clock that stands still for `stood_s`."""

    stood_s: float = 0.0

    def is_due(self, now_s: float, *, is_idle: bool) -> bool:
        return super().is_due(now_s - self.stood_s, is_idle=is_idle)


@dataclass
class SlicedEngine:
    """An engine whose streams never end, and a watch that takes turns by `turns`. `requests` are as
    long as ANSWER_TOKENS, the first of each stream shorter, so that streams end one by one."""

    core: EngineCore
    watch: QualityWatch
    turns: StandingTurns
    answers: WatchedAnswers
    requests: Iterator[Request]
    num_streams: int
    _num_live: int = field(init=False, default=0)

    def rates(self, order: Slices) -> SliceRates:
        watched, plain, busy_s, watched_s = [], [], 0.0, 0.0
        for number in range(-_WARM_UP_ROUNDS, order.num_rounds):
            before_s = self.watch.stats().seconds
            rates = {}
            for is_watched in (True, False) if number % 2 else (False, True):
                rates[is_watched] = self._slice(order.slice_s, is_watched=is_watched)
            if number >= 0:
                watched.append(rates[True])
                plain.append(rates[False])
                busy_s += self.watch.stats().seconds - before_s
                watched_s += order.slice_s
        self.core.abort_all()
        return SliceRates(tuple(watched), tuple(plain), busy_s / watched_s)

    def _slice(self, slice_s: float, *, is_watched: bool) -> float:
        started_s = time.perf_counter()
        num_tokens = 0
        while (elapsed_s := time.perf_counter() - started_s) < slice_s:
            num_tokens += self._step()
            if is_watched:
                self.watch.work(is_idle=False)
        if not is_watched:
            self.turns.stood_s += elapsed_s
        return num_tokens / elapsed_s

    def _step(self) -> int:
        """Answers are offered in all slices: what differs is whether they are scored."""
        for request in itertools.islice(self.requests, self.num_streams - self._num_live):
            self.answers.begin(request)
            self.core.add(request)
            self._num_live += 1
        outputs = self.core.step()
        self._num_live -= sum(output.finish_reason is not None for output in outputs)
        for answer in self.answers.follow(outputs):
            self.watch.offer(answer)
        return sum(len(output.new_token_ids) for output in outputs)


def answer_lengths(num_streams: int) -> Iterator[int]:
    """Of one request after the other."""
    firsts = (max(1, ANSWER_TOKENS * (n + 1) // num_streams) for n in range(num_streams))
    return itertools.chain(firsts, itertools.repeat(ANSWER_TOKENS))
