"""How often the bundled model, as it is served, answers held-out questions correctly, per task.

The same questions for the same seed, in the same order: two results can be compared question by
question, which tells a small loss of quality from luck with far fewer of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from novacron.bench.contestants import engine_client
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import AccuracyScenario
from novacron.bench.statistics import wilson_interval
from novacron.bench.target import (
    LocalEngine,
    Target,
    TargetOptions,
    check,
    engine_settings,
    local_engine,
    open_target,
)
from novacron.demo.examples import Example, is_correct
from novacron.demo.tasks import TASKS, held_out_examples
from novacron.engine.process_client import ProcessClient
from novacron.errors import ConfigError
from novacron.records.request import Request, SamplingParams

_COLUMNS = (
    Column("accuracy", "mean"),
    Column("least", "mean"),
    Column("most", "mean"),
    Column("accuracy", "count"),
)

Ask = Callable[[Example], Awaitable[str]]


async def run(
    options: TargetOptions, scenario: AccuracyScenario, progress: Callable[[str], None]
) -> BenchResult:
    """Greedy answers. `least` and `most` are the ends of the 95 % interval of each accuracy."""
    names = _task_names(scenario.tasks)
    floors = read_floors(Path(scenario.floors)) if scenario.floors else {}
    async with _asking(options, scenario) as (ask, description):
        measurement = Measurement("accuracy", scenario, description)
        rows = []
        for name in names:
            progress(name)
            examples = held_out_examples(name, scenario.num_examples, scenario.seed)
            rows.append(_row(name, await _verdicts(ask, examples, scenario.concurrency)))
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
    _check_names(tuple(checked))
    return checked


def _task_names(wanted: tuple[str, ...]) -> tuple[str, ...]:
    if wanted == ("all",):
        return tuple(TASKS)
    _check_names(wanted)
    return wanted


def _check_names(names: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ConfigError(f"No task is named {', '.join(unknown)}; there are {', '.join(TASKS)}.")


@contextlib.asynccontextmanager
async def _asking(
    options: TargetOptions, scenario: AccuracyScenario
) -> AsyncIterator[tuple[Ask, Mapping[str, object]]]:
    if scenario.through == "http":
        async with open_target(options) as target:
            await target.client.open_connections(scenario.concurrency)
            yield _ask_over_http(target, scenario), target.description
        return
    engine = local_engine(options)
    async with engine_client(engine) as client:
        description = {
            "model": engine.name,
            "settings": engine_settings(engine.config),
        }
        yield _ask_engine(client, engine, scenario), description


def _ask_over_http(target: Target, scenario: AccuracyScenario) -> Ask:
    async def ask(example: Example) -> str:
        body = target.chat_body(_messages(example), scenario.max_tokens)
        return check([await target.chat(body)])[0].text

    return ask


def _ask_engine(client: ProcessClient, engine: LocalEngine, scenario: AccuracyScenario) -> Ask:
    tokenizer = engine.tokenizer()
    ids = itertools.count()

    async def ask(example: Example) -> str:
        request = Request(
            request_id=f"q{next(ids)}",
            prompt_token_ids=tuple(tokenizer.apply_chat_template(_messages(example))),
            sampling=SamplingParams(temperature=0.0, max_tokens=scenario.max_tokens),
            arrival_time_s=time.monotonic(),
        )
        return "".join([output.text async for output in client.generate((request,))])

    return ask


def _messages(example: Example) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in example.messages]


async def _verdicts(ask: Ask, examples: Sequence[Example], concurrency: int) -> list[bool]:
    """In the order of the examples, whatever order the answers come in."""
    free = asyncio.Semaphore(concurrency)

    async def judge(example: Example) -> bool:
        async with free:
            return is_correct(example, await ask(example))

    return await asyncio.gather(*map(judge, examples))


def _row(task: str, verdicts: Sequence[bool]) -> Row:
    interval = wilson_interval(sum(verdicts), len(verdicts))
    return row(
        {"task": task},
        accuracy=metric("", "higher", list(map(float, verdicts)), keep=len(verdicts)),
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
