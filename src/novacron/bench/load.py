"""How much memory loading a model takes, in each precision, at its peak and at its end.

Each time in a process of its own that does nothing else. The peak is to be no more than the weights
as they are held at last, the largest file of the checkpoint, and 200 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from novacron.bench.child_process import working_child
from novacron.bench.forced_job import Refused
from novacron.bench.load_job import Load, LoadJob, LoadNews
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import LoadScenario
from novacron.bench.target import LocalEngine, TargetOptions, engine_settings, local_engine
from novacron.errors import ConfigError, EngineDead

_CHILD = "novacron.bench.loaded_model"
_MB = 10**6
_MOST_BEYOND_MB = 200
_COLUMNS = tuple(
    Column(name, digits=4) for name in ("weights", "largest_file", "peak", "beyond", "left", "time")
)


async def run(
    options: TargetOptions, scenario: LoadScenario, progress: Callable[[str], None]
) -> BenchResult:
    """Raises ConfigError."""
    engine = local_engine(options)
    measurement = Measurement(
        "load", scenario, {"model": engine.name, "settings": engine_settings(engine.config)}
    )
    engines = {
        precision: local_engine(
            replace(options, settings=(*options.settings, f"quantization={precision}"))
        )
        for precision in scenario.precisions
    }
    rows: list[Row] = []
    for precision, one in engines.items():
        loads = []
        for turn in range(scenario.repeats):
            progress(f"{precision}, {turn + 1} of {scenario.repeats}")
            loads.append(await _load(one))
        rows.append(load_row(precision, loads))
    return measurement.finish(rows=rows, columns=_COLUMNS, goals=goals_of(rows))


async def _load(engine: LocalEngine) -> Load:
    job = LoadJob(engine.config.model, str(engine.model_path))
    async with working_child(_CHILD, job, engine) as lines:
        line = await lines.readline()
    if not line:
        raise EngineDead("The process that loads the model ended; its error is above.")
    news: LoadNews = msgspec.json.decode(line, type=LoadNews)
    if isinstance(news, Refused):
        raise ConfigError(news.reason)
    return news


def load_row(precision: str, loads: Sequence[Load]) -> Row:
    """`beyond` is what the peak has beyond the weights and the largest file."""
    beyond = [one.peak_bytes - one.weight_bytes - one.largest_file_bytes for one in loads]
    return row(
        {"precision": precision, "held as": loads[0].precision},
        weights=metric("MB", "lower", [one.weight_bytes / _MB for one in loads]),
        largest_file=metric("MB", "lower", [one.largest_file_bytes / _MB for one in loads]),
        peak=metric("MB", "lower", [one.peak_bytes / _MB for one in loads]),
        beyond=metric("MB", "lower", [value / _MB for value in beyond]),
        left=metric("MB", "lower", [one.left_bytes / _MB for one in loads]),
        time=metric("s", "lower", [one.seconds for one in loads]),
    )


def goals_of(rows: Sequence[Row]) -> list[Goal]:
    """The worst load of each precision."""
    return [
        Goal(
            name=f"peak beyond weights and a file, {one.labels['precision']}",
            limit=_MOST_BEYOND_MB,
            better="lower",
            value=one.metrics["beyond"].summary.max,
            unit="MB",
        )
        for one in rows
    ]
