"""The frame of every benchmark: when it ran, on what, what the client itself cost."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from novacron.bench import machine
from novacron.bench.result import BenchResult, Column, Goal, Row, now
from novacron.bench.scenario import Scenario


class Measurement:
    """One run of one benchmark, from before its warm-up to its result."""

    def __init__(self, benchmark: str, scenario: Scenario, target: Mapping[str, Any]) -> None:
        self._benchmark = benchmark
        self._scenario = scenario
        self._target = dict(target)
        self._started_at = now()
        self._load_at_start = machine.load_average()
        self._client_share: list[float] = []

    @contextlib.contextmanager
    def client_cost(self) -> Iterator[None]:
        """Note the share of a core that this process takes while it measures.

        Above a tenth, the client may be what limits the numbers.
        """
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        share = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
        self._client_share.append(share)

    def finish(
        self,
        *,
        rows: Sequence[Row],
        columns: Sequence[Column],
        goals: Sequence[Goal] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> BenchResult:
        told = {name: value for name, value in (facts or {}).items() if value not in ({}, None)}
        if self._client_share:
            told["share of a core taken by the client"] = round(max(self._client_share), 3)
        return BenchResult(
            benchmark=self._benchmark,
            started_at=self._started_at,
            ended_at=now(),
            load_average=(self._load_at_start, machine.load_average()),
            seed=self._scenario.seed,
            target=plain(self._target),
            scenario=plain(asdict(self._scenario)),
            environment=machine.describe(),
            rows=tuple(rows),
            columns=tuple(columns),
            goals=tuple(goals),
            facts=plain(told),
        )


def plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, and infinity, which JSON has not, by its name."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
