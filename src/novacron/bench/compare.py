"""Two results side by side: ratios with their uncertainty, case by case. Pure.

Ratios of medians, each with a bootstrap interval; a metric has changed only if its interval
excludes 1. Accuracies over the same questions are compared question by question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from novacron.bench.report import Grid, number
from novacron.bench.result import BenchResult, Label, Metric, Row
from novacron.bench.statistics import Interval, mcnemar_p_value, ratio_interval
from novacron.errors import ConfigError

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Change:
    """One metric of one case in both results. `better` is None where neither can be said."""

    labels: dict[str, Label]
    metric: str
    unit: str
    before: float
    after: float
    ratio: float
    interval: Interval
    better: bool | None


@dataclass(frozen=True)
class PairedChange:
    """One task in both results, over the same questions."""

    task: Label
    before: float
    after: float
    only_before: int  # questions that only the first answered correctly
    only_after: int
    p_value: float


def changes(before: BenchResult, after: BenchResult) -> list[Change]:
    """Every metric that both results have for a case with equal labels. Raises ConfigError."""
    _require_alike(before, after)
    compared = [
        _change(row, name, earlier, other.metrics[name])
        for row, other in _common_rows(before, after)
        for name, earlier in row.metrics.items()
        if name in other.metrics and earlier.better != "neither" and earlier.summary.p50 != 0
    ]
    if not compared:
        raise ConfigError("The two results have no case in common; run them with equal options.")
    return compared


def paired_changes(before: BenchResult, after: BenchResult) -> list[PairedChange]:
    """Question by question, for two accuracy results of equal seed and number of questions."""
    _require_alike(before, after)
    same = ("seed", "num_examples")
    if any(before.scenario.get(key) != after.scenario.get(key) for key in same):
        return []
    return [
        _paired(row.labels["task"], row.metrics["accuracy"], other.metrics["accuracy"])
        for row, other in _common_rows(before, after)
        if "accuracy" in row.metrics
        and len(row.metrics["accuracy"].samples) == row.metrics["accuracy"].summary.count
    ]


def comparison_grids(before: BenchResult, after: BenchResult) -> list[Grid]:
    if before.benchmark == "accuracy" and (pairs := paired_changes(before, after)):
        return [_paired_grid(pairs)]
    return [_grid(before.benchmark, changes(before, after))]


def _require_alike(before: BenchResult, after: BenchResult) -> None:
    if before.benchmark != after.benchmark:
        raise ConfigError(
            f"A {before.benchmark} result and a {after.benchmark} result cannot be compared."
        )


def _common_rows(before: BenchResult, after: BenchResult) -> Iterator[tuple[Row, Row]]:
    for row in before.rows:
        other = next((other for other in after.rows if other.labels == row.labels), None)
        if other is not None:
            yield row, other


def _change(row: Row, name: str, before: Metric, after: Metric) -> Change:
    interval = ratio_interval(after.samples, before.samples)
    better: bool | None = None
    if interval.low > 1 or interval.high < 1:
        better = (interval.low > 1) == (before.better == "higher")
    return Change(
        labels=row.labels,
        metric=name,
        unit=before.unit,
        before=before.summary.p50,
        after=after.summary.p50,
        ratio=after.summary.p50 / before.summary.p50,
        interval=interval,
        better=better,
    )


def _paired(task: Label, before: Metric, after: Metric) -> PairedChange:
    pairs = list(zip(before.samples, after.samples, strict=True))
    only_before = sum(first > second for first, second in pairs)
    only_after = sum(second > first for first, second in pairs)
    return PairedChange(
        task=task,
        before=before.summary.mean,
        after=after.summary.mean,
        only_before=only_before,
        only_after=only_after,
        p_value=mcnemar_p_value(only_before, only_after),
    )


def _grid(benchmark: str, compared: list[Change]) -> Grid:
    lines = tuple(
        (
            ", ".join(f"{name} {number(value)}" for name, value in change.labels.items()),
            f"{change.metric} ({change.unit})" if change.unit else change.metric,
            number(change.before),
            number(change.after),
            number(change.ratio),
            f"{number(change.interval.low)} to {number(change.interval.high)}",
            {True: "better", False: "worse", None: "no clear change"}[change.better],
        )
        for change in compared
    )
    header = ("case", "metric (p50)", "before", "after", "ratio", "95 % interval", "verdict")
    return Grid(f"novacron bench {benchmark}: after / before", header, lines)


def _paired_grid(pairs: list[PairedChange]) -> Grid:
    lines = tuple(
        (
            str(pair.task),
            f"{pair.before:.3f}",
            f"{pair.after:.3f}",
            str(pair.only_before),
            str(pair.only_after),
            f"{pair.p_value:.3f}",
            _paired_verdict(pair),
        )
        for pair in pairs
    )
    header = ("task", "before", "after", "lost", "gained", "p", "verdict")
    return Grid("novacron bench accuracy: the same questions, before and after", header, lines)


def _paired_verdict(pair: PairedChange) -> str:
    if pair.p_value >= _SIGNIFICANT:
        return "no clear change"
    return "better" if pair.only_after > pair.only_before else "worse"
