"""An engine whose watch over quality scores each sampled answer at once: `python -m` this file.

Answers come from the step loop, batched, and go through the watch that servers have; only its turns
are not waited for, unless its cost is asked for (watch_cost). Driven by lines of JSON, see
watch_job. Imports torch, as the rest of the bench must not.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from novacron.bench.watch_cost import SlicedEngine, StandingTurns, answer_lengths
from novacron.bench.watch_job import (
    News,
    Order,
    Planted,
    Refused,
    Scored,
    ScoredAnswer,
    SliceRates,
    Slices,
    Traffic,
    Watching,
    WatchJob,
)
from novacron.engine.admission import admit
from novacron.engine.build import build_core, load_executor
from novacron.engine.watched_answers import WatchedAnswers
from novacron.errors import NovaCronError
from novacron.executor.inline import InlineExecutor
from novacron.quality.document import DocumentScores
from novacron.quality.drift import log_error
from novacron.quality.watch import QualityRecord, Turns
from novacron.records.request import Request, SamplingParams

_AT_ONCE = Turns(settled_s=0.0)


@dataclass
class _Noted(QualityRecord):
    """Keeps what the last answer scored."""

    last: DocumentScores | None = None

    def observe(self, scores: DocumentScores) -> list[str]:
        self.last = scores
        return super().observe(scores)


class WatchedEngine:
    """Raises ConfigError and ModelLoadError."""

    def __init__(self, job: WatchJob) -> None:
        config, path = job.config, Path(job.model_path)
        executor = load_executor(config, path, lambda phase, fraction: None)
        assert isinstance(executor, InlineExecutor), "several ranks have no watch"
        self._executor = executor
        self._watch = self._executor.watch_quality(config.watch.quality_floor, _AT_ONCE)
        self._record = _Noted(config.watch.quality_floor)
        self._watch.record = self._record
        self._core = build_core(config, self._executor, Path(config.model.tokenizer or path))
        self._config = config.watch
        self._share = config.watch.quality_watch
        self._seeds = random.Random(config.model.seed or 0)
        self._ids = itertools.count()

    @property
    def described(self) -> Watching:
        decoder = self._executor.decoder
        return Watching(
            quantization=self._executor.spec.quantization,
            reference=f"unrounded, computed in {self._executor.spec.dtype}",
            kernels=decoder.kernels.name,
            num_layers=len(decoder.config.layers),
        )

    def serve(self, traffic: Traffic) -> Scored:
        with self._planted(traffic.planted):
            return Scored(tuple(self._scored(traffic)))

    def rates(self, order: Slices) -> SliceRates:
        """The rates of streams with the watch as servers have it, and without."""
        turns = StandingTurns()
        return SlicedEngine(
            self._core,
            self._executor.watch_quality(self._config.quality_floor, turns),
            turns,
            WatchedAnswers(self._share),
            self._endless(order),
            order.num_streams,
        ).rates(order)

    def _endless(self, order: Slices) -> Iterator[Request]:
        prompts = itertools.cycle(order.prompts)
        for prompt, length in zip(prompts, answer_lengths(order.num_streams), strict=False):
            sampling = SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True)
            yield self._admitted(prompt, sampling)

    def shutdown(self) -> None:
        self._core.shutdown()

    def _planted(self, planted: Planted | None) -> contextlib.AbstractContextManager[object]:
        if planted is None:
            return contextlib.nullcontext()
        return self._executor.with_wrong_scales(planted.pattern, planted.factor)

    def _scored(self, traffic: Traffic) -> Iterator[ScoredAnswer]:
        answers, num_ended = WatchedAnswers(self._share), 0
        for prompt in traffic.prompts:
            request = self._request(prompt, traffic)
            answers.begin(request)
            self._core.add(request)
        while self._core.has_work:
            for output in self._core.step():
                num_ended += output.finish_reason is not None
                for answer in answers.follow((output,)):
                    self._watch.offer(answer)
                    while self._watch.has_work:
                        self._watch.work(is_idle=True)
                    scores = self._record.last
                    assert scores is not None
                    yield ScoredAnswer(num_ended, log_error(scores), float(np.mean(scores.kl)))

    def _request(self, prompt: tuple[int, ...], traffic: Traffic) -> Request:
        sampling = SamplingParams(temperature=traffic.temperature, max_tokens=traffic.max_tokens)
        return self._admitted(prompt, sampling)

    def _admitted(self, prompt: tuple[int, ...], sampling: SamplingParams) -> Request:
        request = Request(
            request_id=f"watched-{next(self._ids)}",
            prompt_token_ids=prompt,
            sampling=sampling,
            arrival_time_s=time.monotonic(),
        )
        return admit(request, self._executor.spec, self._seeds)


def main() -> None:
    lines = sys.stdin.buffer
    try:
        engine = WatchedEngine(msgspec.json.decode(lines.readline(), type=WatchJob))
        _tell(engine.described)
        for line in lines:
            order: Order = msgspec.json.decode(line, type=Order)
            _tell(engine.rates(order) if isinstance(order, Slices) else engine.serve(order))
        engine.shutdown()
    except NovaCronError as error:
        _tell(Refused(str(error)))


def _tell(news: News) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
