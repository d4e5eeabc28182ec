"""From nothing to the first token: `novacron serve` started again and again, page cache warm.

Also what importing costs in each of the two processes, beyond starting Python.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from novacron.bench import server_metrics
from novacron.bench.http_client import HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import StartupScenario
from novacron.bench.server import running_server
from novacron.bench.target import (
    LocalEngine,
    TargetOptions,
    check,
    encode_request,
    engine_settings,
    first_model,
    local_engine,
)
from novacron.bench.transcript import read_transcript

_COLUMNS = (
    Column("wall"),
    Column("wall", "p90"),
    Column("wall", "stddev"),
    Column("cpu"),
)
_IMPORTED = {
    "import of the API process": "novacron.cli.serve_loop",
    "import of the engine process": "novacron.engine.core_process",
}
_AS_THEY_DO = "import gc; gc.disable()"  # both collect no garbage while they import
_PROMPT = "What is the capital of France?"
_BARE_PYTHON = "start of Python alone"
_GOAL_FIRST_TOKEN_S = 3.0
_GOAL_IMPORT_S = 1.0
_API_IMPORT = next(iter(_IMPORTED))


@dataclass
class _Start:
    """Seconds from the start of the process to each milestone, and the phases in between."""

    milestones_s: dict[str, float]
    phases_s: dict[str, float] = field(default_factory=dict)


async def run(
    options: TargetOptions, scenario: StartupScenario, progress: Callable[[str], None]
) -> BenchResult:
    engine = local_engine(options)
    measurement = Measurement(
        "startup",
        scenario,
        {"model": engine.name, "settings": engine_settings(engine.config)},
    )
    progress("warm-up")
    await _start(engine)
    starts: list[_Start] = []
    imports: dict[str, list[tuple[float, float]]] = {}
    for turn in range(scenario.repeats):
        progress(f"start {turn + 1} of {scenario.repeats}")
        starts.append(await _start(engine))
        for name, statement in _statements().items():
            imports.setdefault(name, []).append(_run_python(statement, engine))
    rows = [*_milestone_rows(starts), *_phase_rows(starts), *_import_rows(imports)]
    return measurement.finish(rows=rows, columns=_COLUMNS, goals=_goals(rows))


async def _start(engine: LocalEngine) -> _Start:
    async with running_server(engine.plan) as server:
        client = HttpClient(server.url, engine.api_key or None)
        try:
            milestones_s = {
                "/health": await server.wait_for(client, "/health"),
                "/ready": await server.wait_for(client, "/ready"),
            }
            body = encode_request(await first_model(client), {"prompt": _PROMPT}, max_tokens=1)
            [answer] = check([read_transcript(await client.post("/v1/completions", body))])
            first_token_s = answer.started_s + answer.ttft_s
            milestones_s["first token"] = first_token_s - server.started_s
            metrics = await server_metrics.snapshot(client)
        finally:
            client.close()
    return _Start(milestones_s, metrics.by_label("novacron_startup_phase_seconds", "phase"))


def _statements() -> dict[str, str]:
    imports = {name: f"{_AS_THEY_DO}; import {module}" for name, module in _IMPORTED.items()}
    return {_BARE_PYTHON: "pass", **imports}


def _run_python(statement: str, engine: LocalEngine) -> tuple[float, float]:
    """Wall and processor seconds of a Python process that does only this."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=dict(engine.plan.environment), check=True)
    wall_s = time.perf_counter() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s


def _milestone_rows(starts: list[_Start]) -> list[Row]:
    return [
        _row(f"serve to {name}", [start.milestones_s[name] for start in starts])
        for name in starts[0].milestones_s
    ]


def _phase_rows(starts: list[_Start]) -> list[Row]:
    return [
        _row(f"phase: {name}", [start.phases_s[name] for start in starts])
        for name in starts[0].phases_s
    ]


def _import_rows(imports: dict[str, list[tuple[float, float]]]) -> list[Row]:
    return [
        row(
            {"what": name},
            wall=metric("s", "lower", [wall_s for wall_s, _ in times]),
            cpu=metric("s", "lower", [cpu_s for _, cpu_s in times]),
        )
        for name, times in imports.items()
    ]


def _row(what: str, samples_s: list[float]) -> Row:
    return row({"what": what}, wall=metric("s", "lower", samples_s))


def _goals(rows: list[Row]) -> list[Goal]:
    medians = {one.labels["what"]: one.metrics["wall"].summary.p50 for one in rows}
    return [
        Goal(
            name="process start to first token",
            limit=_GOAL_FIRST_TOKEN_S,
            better="lower",
            value=medians["serve to first token"],
            unit="s",
        ),
        Goal(
            name="import of the API process, beyond Python itself",
            limit=_GOAL_IMPORT_S,
            better="lower",
            value=medians[_API_IMPORT] - medians[_BARE_PYTHON],
            unit="s",
        ),
    ]
