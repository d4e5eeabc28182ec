"""Tokens per second of many streams at once, and what each layer above the engine takes of it.

All contestants run in every round, in an order that rotates, each alone; shares and added latency
are computed within a round and then summarised, so that a slow round harms nobody's share.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from novacron.bench import machine, server_metrics
from novacron.bench.contestants import (
    Contestant,
    OverHttp,
    ThroughClient,
    bare_core,
    engine_client,
)
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, row
from novacron.bench.rounds import Batch, Round, goals_of, mean_steps_ms, metrics_of, turn_order
from novacron.bench.scenario import ThroughputScenario
from novacron.bench.target import (
    LocalEngine,
    Target,
    TargetOptions,
    engine_settings,
    local_engine,
    open_target,
    token_prompts,
)
from novacron.bench.workload import PromptMaker, make_prompts
from novacron.errors import ConfigError

_COLUMNS = (
    Column("output_rate"),
    Column("total_rate"),
    Column("ttft"),
    Column("ttft", "p99"),
    Column("tpot"),
    Column("itl", "p99"),
    Column("share"),
    Column("added_per_token"),
    Column("client"),
)


@dataclass(frozen=True)
class _Field:
    """Who takes part, and on which prompts."""

    contestants: tuple[Contestant, ...]
    maker: PromptMaker
    target: Target | None
    engine: LocalEngine | None


async def run(
    options: TargetOptions, scenario: ThroughputScenario, progress: Callable[[str], None]
) -> BenchResult:
    async with _field(options, scenario) as field:
        measurement = Measurement("throughput", scenario, _description(field))
        rounds: dict[int, list[Round]] = {streams: [] for streams in scenario.num_streams}
        for turn in range(-1, scenario.repeats):
            progress("warm-up" if turn < 0 else f"round {turn + 1} of {scenario.repeats}")
            for streams, done in rounds.items():
                batches = await _round(field, scenario, streams, turn)
                if turn >= 0:
                    done.append(batches)
        rows = [
            row({"through": one.name, "streams": streams}, **metrics_of(one.name, done))
            for streams, done in rounds.items()
            for one in field.contestants
        ]
        most = max(rounds)
        return measurement.finish(
            rows=rows,
            columns=_COLUMNS,
            goals=goals_of(rounds[most]),
            facts={
                f"mean step at {most} streams, prefill included (ms)": mean_steps_ms(rounds[most]),
                "distance to the limit of the machine": _limits(
                    field, scenario, most, rounds[most]
                ),
            },
        )


@contextlib.asynccontextmanager
async def _field(options: TargetOptions, scenario: ThroughputScenario) -> AsyncIterator[_Field]:
    async with contextlib.AsyncExitStack() as stack:
        contestants: list[Contestant] = []
        target: Target | None = None
        engine: LocalEngine | None = None
        maker: PromptMaker | None = None
        if scenario.through in ("both", "engine") and not options.url:
            engine = local_engine(options)
            maker = token_prompts(engine.tokenizer())
            contestants.append(await stack.enter_async_context(bare_core(engine)))
            client = await stack.enter_async_context(engine_client(engine))
            contestants.append(ThroughClient(client))
        if scenario.through in ("both", "http"):
            target = await stack.enter_async_context(open_target(options))
            maker = target.maker
            contestants.append(OverHttp(target))
        if maker is None:
            raise ConfigError("The engine behind a URL cannot be driven alone; drop --through.")
        yield _Field(tuple(contestants), maker, target, engine)


async def _round(
    field: _Field, scenario: ThroughputScenario, streams: int, turn: int
) -> dict[str, Batch]:
    """Every contestant on the same prompts, which none of them has seen before."""
    seed = (scenario.seed * 1_000_003 + turn) * 10_007 + streams
    prompts = make_prompts(field.maker, seed, streams, scenario.prompt_tokens)
    batches = {}
    for contestant in turn_order(field.contestants, turn):
        over_http = field.target if isinstance(contestant, OverHttp) else None
        before = await server_metrics.snapshot(over_http.client) if over_http else None
        started_cpu_s = time.process_time()
        transcripts = await contestant.run_batch(prompts, scenario.output_tokens)
        cpu_s = time.process_time() - started_cpu_s
        step_s = None
        if over_http and before:
            after = await server_metrics.snapshot(over_http.client)
            step_s = server_metrics.mean_step_s(before, after)
        batches[contestant.name] = Batch(transcripts, cpu_s, step_s)
    return batches


def _limits(
    field: _Field, scenario: ThroughputScenario, streams: int, rounds: Sequence[Round]
) -> dict[str, float] | None:
    """Of the first contestant: the bare core, where it takes part."""
    engine = field.engine or (field.target.engine if field.target else None)
    traffic = engine.traffic() if engine else None
    if traffic is None:
        return None
    first = field.contestants[0].name
    step_s = statistics.median(batches[first].median_tpot_s for batches in rounds)
    if not step_s:
        return None  # all tokens came at once
    return traffic.utilisation(
        step_s,
        machine.read_bandwidth_bytes_per_s(),
        num_sequences=streams,
        context=scenario.prompt_tokens + scenario.output_tokens / 2,
    )


def _description(field: _Field) -> dict[str, object]:
    if field.target is not None:
        return field.target.description
    assert field.engine is not None
    return {"model": field.engine.name, "settings": engine_settings(field.engine.config)}
