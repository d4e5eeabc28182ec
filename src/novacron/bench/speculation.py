"""What speculation brings: the same questions to engines that differ in nothing else.

Streams ask one question after another, so that their number stays the same; answers end where the
model ends them, because a text forced on past its end repeats itself and is guessed too easily. All
methods run in every round, in an order that rotates; ratios are taken within a round. Answers are
compared token by token: speculation must not change any.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from novacron.bench.contestants import engine_client
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, row
from novacron.bench.scenario import SpeculationScenario
from novacron.bench.speculation_rounds import OFF, Batch, Round, goals_of, metrics_of
from novacron.bench.target import LocalEngine, TargetOptions, engine_settings, local_engine
from novacron.demo.tasks import TASKS, held_out_examples
from novacron.engine.client import EngineClient
from novacron.engine.draft_pair import find_draft_model
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError, RequestFailed
from novacron.records.output import EngineStats
from novacron.records.request import Request, SamplingParams

_METHODS = (OFF, "ngram", "draft")

_COLUMNS = (
    Column("output_rate"),
    Column("ratio"),
    Column("tokens_per_step"),
    Column("right"),
    Column("drafting"),
)

Question = tuple[int, ...]


async def run(
    options: TargetOptions, scenario: SpeculationScenario, progress: Callable[[str], None]
) -> BenchResult:
    _check_tasks(scenario.tasks)
    engine = local_engine(options)
    engines = {method: _with_method(engine, method, scenario) for method in _methods(scenario)}
    tokenizer = engine.tokenizer()
    async with _clients(engines) as clients:
        measurement = Measurement("speculation", scenario, _description(engine, engines))
        rounds: dict[int, list[Round]] = {streams: [] for streams in scenario.num_streams}
        for turn in range(-1, scenario.repeats):
            progress("warm-up" if turn < 0 else f"round {turn + 1} of {scenario.repeats}")
            for streams, done in rounds.items():
                questions = _questions(scenario, tokenizer, streams, turn)
                batches = await _round(clients, scenario, questions, streams, turn)
                if turn >= 0:
                    done.append(batches)
    return measurement.finish(
        rows=[
            row({"method": method, "streams": streams}, **metrics_of(method, done))
            for streams, done in rounds.items()
            for method in engines
        ],
        columns=_COLUMNS,
        goals=goals_of(rounds),
        facts={"tokens of an answer (mean)": _mean_answer(rounds)},
    )


def _check_tasks(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in TASKS]:
        raise ConfigError(f"No task is named {', '.join(unknown)}; there are {', '.join(TASKS)}.")


def _methods(scenario: SpeculationScenario) -> tuple[str, ...]:
    unknown = set(scenario.methods) - set(_METHODS)
    if unknown:
        raise ConfigError(
            f"There is no method {', '.join(sorted(unknown))}; there are {', '.join(_METHODS)}."
        )
    return (OFF, *(method for method in scenario.methods if method != OFF))


def _with_method(engine: LocalEngine, method: str, scenario: SpeculationScenario) -> LocalEngine:
    """The engine with this method. Raises ConfigError if its draft model does not fit."""
    speculative = replace(
        engine.config.speculative,
        speculative_method=method,  # type: ignore[arg-type]
        speculative_model=scenario.draft_model if method == "draft" else "",
    )
    changed = replace(engine, config=replace(engine.config, speculative=speculative))
    find_draft_model(changed.config, changed.model_path)
    return changed


@contextlib.asynccontextmanager
async def _clients(engines: Mapping[str, LocalEngine]) -> AsyncIterator[dict[str, EngineClient]]:
    """One engine process for each method; those that wait do not use the processor."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            method: await stack.enter_async_context(engine_client(engine))
            for method, engine in engines.items()
        }


def _questions(
    scenario: SpeculationScenario, tokenizer: Tokenizer, num_streams: int, turn: int
) -> list[Question]:
    """Of all tasks in turn, so that every round has about the same mixture."""
    names = scenario.tasks
    seed = (scenario.seed * 1_000_003 + turn) * 10_007 + num_streams
    count = num_streams * scenario.num_questions
    shuffled = random.Random(f"tasks/{seed}").sample(names, len(names))
    chosen = list(itertools.islice(itertools.cycle(shuffled), count))
    examples = {
        name: iter(held_out_examples(name, chosen.count(name), seed)) for name in set(chosen)
    }
    return [_tokens(tokenizer, next(examples[name]).messages) for name in chosen]


def _tokens(tokenizer: Tokenizer, messages: Sequence[Any]) -> Question:
    """As a chat; as plain text for a model without a chat template."""
    if not tokenizer.has_chat_template:
        return tuple(tokenizer.encode(" ".join(message.content for message in messages)))
    return tuple(tokenizer.apply_chat_template([message._asdict() for message in messages]))


async def _round(
    clients: Mapping[str, EngineClient],
    scenario: SpeculationScenario,
    questions: Sequence[Question],
    num_streams: int,
    turn: int,
) -> Round:
    """Every method on the same questions; everybody goes first equally often."""
    order = list(clients)
    start = turn % len(order)
    found = {
        method: await _batch(clients[method], scenario, questions, num_streams)
        for method in order[start:] + order[:start]
    }
    return {method: found[method] for method in order}


async def _batch(
    client: EngineClient,
    scenario: SpeculationScenario,
    questions: Sequence[Question],
    num_streams: int,
) -> Batch:
    answers: dict[int, tuple[int, ...]] = {}
    waiting = iter(enumerate(questions))

    async def stream() -> None:
        for number, question in waiting:
            answers[number] = await _answer(client, scenario, question, number)

    before = client.stats
    started_s = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(num_streams)))
    wall_s = time.perf_counter() - started_s
    return _summed(before, client.stats, [answers[n] for n in range(len(questions))], wall_s)


def _summed(
    before: EngineStats, after: EngineStats, answers: Sequence[tuple[int, ...]], wall_s: float
) -> Batch:
    return Batch(
        answers=tuple(answers),
        wall_s=wall_s,
        num_steps=after.num_steps - before.num_steps,
        num_draft_tokens=after.num_draft_tokens - before.num_draft_tokens,
        num_accepted_tokens=after.num_accepted_tokens - before.num_accepted_tokens,
        draft_time_s=after.draft_time_s - before.draft_time_s,
    )


async def _answer(
    client: EngineClient, scenario: SpeculationScenario, question: Question, number: int
) -> tuple[int, ...]:
    request = Request(
        request_id=f"q{number}",
        prompt_token_ids=question,
        sampling=SamplingParams(
            temperature=scenario.temperature, max_tokens=scenario.output_tokens, seed=number
        ),
        arrival_time_s=time.monotonic(),
    )
    tokens: list[int] = []
    async for output in client.generate((request,)):
        if output.error is not None:
            raise RequestFailed(f"A question of the benchmark failed: {output.error}")
        tokens += output.token_ids
    return tuple(tokens)


def _mean_answer(rounds: Mapping[int, Sequence[Round]]) -> float:
    lengths = [
        len(answer) for done in rounds.values() for one in done for answer in one[OFF].answers
    ]
    return round(statistics.mean(lengths), 1)


def _description(engine: LocalEngine, engines: Mapping[str, LocalEngine]) -> dict[str, Any]:
    return {
        "model": engine.name,
        "settings": engine_settings(engine.config),
        "speculation": {
            method: {
                name: value
                for name, value in asdict(one.config.speculative).items()
                if name != "speculative_model"
            }
            for method, one in engines.items()
        },
    }
