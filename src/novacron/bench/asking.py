"""Questions of the bundled model's tasks, asked of a server or of an engine, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from novacron.bench.contestants import engine_client
from novacron.bench.scenario import AccuracyScenario
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
from novacron.demo.tasks import TASKS
from novacron.engine.process_client import ProcessClient
from novacron.errors import ConfigError
from novacron.records.request import Request, SamplingParams

Ask = Callable[[Example], Awaitable[str]]


def task_names(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a scenario asks for. Raises ConfigError."""
    if wanted == ("all",):
        return tuple(TASKS)
    check_names(wanted)
    return wanted


def check_names(names: tuple[str, ...]) -> None:
    """Raises ConfigError if one is not that of a task."""
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ConfigError(f"No task is named {', '.join(unknown)}; there are {', '.join(TASKS)}.")


async def verdicts(ask: Ask, examples: Sequence[Example], concurrency: int) -> list[bool]:
    """In the order of the examples, whatever order the answers come in."""
    free = asyncio.Semaphore(concurrency)

    async def judge(example: Example) -> bool:
        async with free:
            return is_correct(example, await ask(example))

    return await asyncio.gather(*map(judge, examples))


@contextlib.asynccontextmanager
async def asking(
    options: TargetOptions, scenario: AccuracyScenario
) -> AsyncIterator[tuple[Ask, Mapping[str, object]]]:
    """How to ask the server or the engine that `options` describe, and what it is."""
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
