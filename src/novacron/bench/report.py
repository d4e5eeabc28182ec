"""Results for people: tables on a terminal and in Markdown, from the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from novacron.bench.result import BenchResult, Column, Goal, Metric, Row

_WIDEST = 10  # columns of figures that a terminal still shows


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", header_style="bold")
        for name in self.header:
            table.add_column(name, justify="right" if name != self.header[0] else "left")
        for line in self.lines:
            table.add_row(*map(Text, line))
        return table

    def markdown(self) -> str:
        rule = ("---", *("---:" for _ in self.header[1:]))
        rows = [self.header, rule, *self.lines]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def results_grid(result: BenchResult) -> Grid:
    """One line per row, in the columns that the benchmark chose; turned over if they are many."""
    label_names = _label_names(result.rows)
    shown = [column for column in result.columns if _unit_of(result.rows, column) is not None]
    header = (*label_names, *(_title(result.rows, column) for column in shown))
    lines = tuple(
        (
            *(number(row.labels.get(name, "")) for name in label_names),
            *(_cell(row, column) for column in shown),
        )
        for row in result.rows
    )
    table = (header, *lines)
    if len(shown) > _WIDEST:
        table = tuple(zip(*table, strict=True))
    return Grid(f"novacron bench {result.benchmark}", table[0], table[1:])


def goals_grid(goals: Sequence[Goal]) -> Grid:
    lines = tuple(
        (
            goal.name,
            f"{'<=' if goal.better == 'lower' else '>='} {number(goal.limit)} {goal.unit}".strip(),
            f"{number(goal.value)} {goal.unit}".strip(),
            "met" if goal.met else "MISSED",
        )
        for goal in goals
    )
    return Grid("Goals", ("goal", "limit", "measured", "verdict"), lines)


def render(result: BenchResult) -> RenderableType:
    parts: list[RenderableType] = [results_grid(result).rich()]
    if result.goals:
        parts.append(goals_grid(result.goals).rich())
    parts += [Text(line) for line in fact_lines(result)]
    parts.append(Text(_load(result), style="dim"))
    return Group(*parts)


def markdown(result: BenchResult) -> str:
    """A page that stands beside the JSON file."""
    environment, hardware = result.environment, result.environment.hardware
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    parts = [
        f"# novacron bench {result.benchmark}",
        f"{hardware.cpu_model}, {hardware.num_usable_cpus} CPUs, "
        f"{hardware.memory_bytes / 2**30:.0f} GiB, {hardware.system}. "
        f"Python {environment.python}, {versions}. Commit {environment.commit or 'unknown'}.",
        f"{result.started_at} to {result.ended_at}, {_load(result)}, seed {result.seed}. "
        "How it is measured: METHODOLOGY.md.",
        results_grid(result).markdown(),
    ]
    if result.goals:
        parts.append(goals_grid(result.goals).markdown())
    facts = fact_lines(result)
    if facts:
        parts.append("\n".join(f"- {line}" for line in facts))
    parts.append(f"Scenario: `{_inline(result.scenario)}`. Target: `{_inline(result.target)}`.")
    return "\n\n".join(parts) + "\n"


def fact_lines(result: BenchResult) -> list[str]:
    return [f"{name}: {_inline(value)}" for name, value in result.facts.items()]


def _load(result: BenchResult) -> str:
    """Shown with every result: numbers from a busy machine are ratios at best."""
    before, after = result.load_average
    num_cpus = result.environment.hardware.num_usable_cpus
    return f"load average {before} before, {after} after, on {num_cpus} CPUs"


def number(value: object, digits: int = 3) -> str:
    """`digits` significant ones where a fraction is shown, all digits of whole numbers."""
    if not isinstance(value, float):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inline(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return number(value)


def _label_names(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.labels))


def _unit_of(rows: Iterable[Row], column: Column) -> str | None:
    return next(
        (row.metrics[column.metric].unit for row in rows if column.metric in row.metrics), None
    )


def _title(rows: Iterable[Row], column: Column) -> str:
    unit = _unit_of(rows, column)
    statistic = "" if column.statistic == "mean" and unit == "" else f" {column.statistic}"
    return f"{column.metric}{statistic}{f' ({unit})' if unit else ''}"


def _cell(row: Row, column: Column) -> str:
    metric: Metric | None = row.metrics.get(column.metric)
    if metric is None:
        return ""
    return number(float(getattr(metric.summary, column.statistic)), column.digits)
