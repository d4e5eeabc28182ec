"""How often the bundled model, as it is served, answers held-out questions correctly, per task.

The same questions for the same seed, in the same order: two results can be compared question by
question, which tells a small loss of quality from luck with far fewer of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from novacron.bench import quality
from novacron.bench.asking import asking, check_names, task_names, verdicts
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import AccuracyScenario
from novacron.bench.statistics import wilson_interval
from novacron.bench.target import TargetOptions
from novacron.demo.tasks import held_out_examples
from novacron.errors import ConfigError

_COLUMNS = (
    Column("accuracy", "mean"),
    Column("least", "mean"),
    Column("most", "mean"),
    Column("accuracy", "count"),
)


async def run(
    options: TargetOptions, scenario: AccuracyScenario, progress: Callable[[str], None]
) -> BenchResult:
    """Greedy answers. `least` and `most` are the ends of the 95 % interval of each accuracy. With
    `against`, what quality.run compares."""
    if scenario.against:
        return await quality.run(options, scenario, progress)
    names = task_names(scenario.tasks)
    floors = read_floors(Path(scenario.floors)) if scenario.floors else {}
    async with asking(options, scenario) as (ask, description):
        measurement = Measurement("accuracy", scenario, description)
        rows = []
        for name in names:
            progress(name)
            examples = held_out_examples(name, scenario.num_examples, scenario.seed)
            rows.append(_row(name, await verdicts(ask, examples, scenario.concurrency)))
        right = [sample for one in rows for sample in one.metrics["accuracy"].samples]
        return measurement.finish(
            rows=rows,
            columns=_COLUMNS,
            goals=_goals(rows, floors),
            facts={"mean over tasks": sum(right) / len(right)},
        )


def read_floors(path: Path) -> dict[str, float]:
    """The least accuracy per task: a JSON object of task names and fractions."""
    try:
        floors = json.loads(path.read_text())
        checked = {str(task): float(floor) for task, floor in floors.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'{path} is no file of floors: {error}. It is JSON such as {{"capitals": 0.95}}.'
        ) from error
    check_names(tuple(checked))
    return checked


def _row(task: str, right: Sequence[bool]) -> Row:
    interval = wilson_interval(sum(right), len(right))
    return row(
        {"task": task},
        accuracy=metric("", "higher", list(map(float, right)), keep=len(right)),
        least=metric("", "higher", [interval.low]),
        most=metric("", "higher", [interval.high]),
    )


def _goals(rows: Sequence[Row], floors: Mapping[str, float]) -> list[Goal]:
    measured = {one.labels["task"]: one.metrics["accuracy"].summary.mean for one in rows}
    return [
        Goal(name=f"accuracy on {task}", limit=floor, better="higher", value=measured[task])
        for task, floor in floors.items()
        if task in measured
    ]
