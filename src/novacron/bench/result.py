"""The one shape of all results: rows of labelled metrics with their samples, and what was asked.

Written as JSON, read back to be compared. `FORMAT` changes when a reader must know.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from novacron.bench.machine import Environment
from novacron.bench.statistics import Summary, summarise
from novacron.errors import ConfigError

FORMAT = 1
_MOST_SAMPLES_KEPT = 500  # of each metric, so that files stay small enough to be committed
_DIGITS = 4

Better = Literal["lower", "higher", "neither"]
Label = str | int | float


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity. The summary is of all samples; of very many, a random part is kept."""

    unit: str
    better: Better
    summary: Summary
    samples: tuple[float, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one case, told apart from the other cases by its labels."""

    labels: dict[str, Label]
    metrics: dict[str, Metric]


class Column(msgspec.Struct, frozen=True, array_like=True):
    """What a table shows of each row, fractions in so many significant digits."""

    metric: str
    statistic: Literal["mean", "min", "p50", "p90", "p95", "p99", "max", "stddev", "count"] = "p50"
    digits: int = 3


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A number we promised to reach, and whether this run did."""

    name: str
    limit: float
    better: Literal["lower", "higher"]
    value: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one benchmark measured, with all that is needed to repeat and to judge it."""

    benchmark: str
    started_at: str
    ended_at: str
    load_average: tuple[float, float]  # at the start and at the end
    seed: int
    target: dict[str, Any]  # the server: model, where it ran, its effective configuration
    scenario: dict[str, Any]  # what was asked of it
    environment: Environment
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    goals: tuple[Goal, ...] = ()
    facts: dict[str, Any] = {}  # what explains the numbers: breakdowns, limits, client cost
    format: int = FORMAT

    def row(self, **labels: Label) -> Row:
        """The first row that has these labels."""
        return next(row for row in self.rows if labels.items() <= row.labels.items())


def metric(
    unit: str,
    better: Better,
    samples: Sequence[float],
    *,
    keep: int = _MOST_SAMPLES_KEPT,
    digits: int = _DIGITS,
) -> Metric:
    """Summarise all samples, and keep up to `keep` of them, chosen at random but repeatably.
    `digits` of a fraction are kept."""
    kept = list(samples)
    if len(kept) > keep:
        kept = random.Random(0).sample(kept, keep)
    summary = summarise(samples)
    rounded = {
        name: round(value, digits) for name, value in msgspec.structs.asdict(summary).items()
    }
    return Metric(
        unit=unit,
        better=better,
        summary=Summary(**rounded),
        samples=tuple(round(sample, digits) for sample in kept),
    )


def milliseconds(samples_s: Sequence[float]) -> Metric:
    return metric("ms", "lower", [sample * 1000 for sample in samples_s])


def row(labels: Mapping[str, Label], **metrics: Metric) -> Row:
    return Row(labels=dict(labels), metrics=metrics)


def save(result: BenchResult, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_lines(msgspec.json.encode(result)))


def load(path: Path) -> BenchResult:
    """Raises ConfigError if the file is not a result that this version can read."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=BenchResult)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} is not a benchmark result: {error}.") from error
    if result.format != FORMAT:
        raise ConfigError(
            f"{path} has format {result.format}; this version of novacron reads {FORMAT}."
        )
    return result


def _lines(data: bytes) -> bytes:
    return msgspec.json.format(data, indent=1) + b"\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
