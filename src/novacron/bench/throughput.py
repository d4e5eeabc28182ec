"""Tokens per second of many streams at once, and what each layer above the engine takes of it.

All contestants run in every round, in an order that rotates, each alone; shares and added latency
are computed within a round and then summarised, so that a slow round harms nobody's share.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from novacron.bench import machine, server_metrics
from novacron.bench.contestants import (
    BareCore,
    Contestant,
    OverHttp,
    ThroughClient,
    bare_core,
    engine_client,
)
from novacron.bench.measurement import Measurement
from novacron.bench.physical_limits import model_traffic
from novacron.bench.result import BenchResult, Column, Goal, Metric, metric, milliseconds, row
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
from novacron.bench.transcript import Transcript
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
_GOAL_SHARE = 0.90
_GOAL_ADDED_MS = 2.0


@dataclass(frozen=True)
class _Field:
    """Who takes part, and on which prompts."""

    contestants: tuple[Contestant, ...]
    maker: PromptMaker
    target: Target | None
    engine: LocalEngine | None


@dataclass(frozen=True)
class _Batch:
    """One contestant's part of one round.

    `cpu_s` is what it took of this process; `step_s` the engine's own mean, where it tells.
    """

    transcripts: list[Transcript]
    cpu_s: float
    step_s: float | None

    @property
    def wall_s(self) -> float:
        first = min(t.started_s for t in self.transcripts)
        return max(t.ended_s for t in self.transcripts) - first

    @property
    def output_rate(self) -> float:
        return sum(t.num_output_tokens for t in self.transcripts) / self.wall_s

    @property
    def total_rate(self) -> float:
        prompt_tokens = sum(t.num_prompt_tokens for t in self.transcripts)
        return self.output_rate + prompt_tokens / self.wall_s

    @property
    def median_tpot_s(self) -> float:
        return statistics.median(t.tpot_s or 0.0 for t in self.transcripts)


async def run(
    options: TargetOptions, scenario: ThroughputScenario, progress: Callable[[str], None]
) -> BenchResult:
    async with _field(options, scenario) as field:
        measurement = Measurement("throughput", scenario, _description(field))
        rounds: list[dict[str, _Batch]] = []
        progress("warm-up")
        await _round(field, scenario, turn=-1)
        for turn in range(scenario.repeats):
            progress(f"round {turn + 1} of {scenario.repeats}")
            rounds.append(await _round(field, scenario, turn))
        rows = [
            row(
                {"through": one.name, "streams": scenario.num_streams}, **_metrics(one.name, rounds)
            )
            for one in field.contestants
        ]
        return measurement.finish(
            rows=rows,
            columns=_COLUMNS,
            goals=_goals(rounds),
            facts={
                "engine's own step under http (median ms)": _own_step_ms(rounds),
                "distance to the limit of the machine": _limits(field, scenario, rounds),
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


async def _round(field: _Field, scenario: ThroughputScenario, turn: int) -> dict[str, _Batch]:
    """Every contestant on the same prompts, which none of them has seen before."""
    prompts = make_prompts(
        field.maker,
        scenario.seed * 1_000_003 + turn,
        scenario.num_streams,
        scenario.prompt_tokens,
    )
    batches = {}
    for contestant in _rotated(field.contestants, turn):
        over_http = field.target if isinstance(contestant, OverHttp) else None
        before = await server_metrics.snapshot(over_http.client) if over_http else None
        started_cpu_s = time.process_time()
        transcripts = await contestant.run_batch(prompts, scenario.output_tokens)
        cpu_s = time.process_time() - started_cpu_s
        step_s = None
        if over_http and before:
            after = await server_metrics.snapshot(over_http.client)
            step_s = server_metrics.mean_step_s(before, after)
        batches[contestant.name] = _Batch(transcripts, cpu_s, step_s)
    return batches


def _rotated(contestants: tuple[Contestant, ...], turn: int) -> tuple[Contestant, ...]:
    """Everybody goes first equally often, and follows everybody else."""
    start = turn % len(contestants)
    order = contestants[start:] + contestants[:start]
    return order if (turn // len(contestants)) % 2 == 0 else order[::-1]


def _metrics(name: str, rounds: list[dict[str, _Batch]]) -> dict[str, Metric]:
    batches = [batches[name] for batches in rounds]
    transcripts = [t for batch in batches for t in batch.transcripts]
    metrics = {
        "output_rate": metric("tok/s", "higher", [b.output_rate for b in batches]),
        "total_rate": metric("tok/s", "higher", [b.total_rate for b in batches]),
        "ttft": milliseconds([t.ttft_s for t in transcripts]),
        "tpot": milliseconds([b.median_tpot_s for b in batches]),
        "e2e": milliseconds([t.e2e_s for t in transcripts]),
        "client": metric("of a core", "neither", [b.cpu_s / b.wall_s for b in batches]),
    }
    itls = [itl for t in transcripts for itl in t.itls_s]
    if itls:
        metrics["itl"] = milliseconds(itls)
    if BareCore.name in rounds[0]:
        metrics["share"] = metric("", "higher", _shares(rounds, name, BareCore.name))
        metrics["added_per_token"] = milliseconds(_added_s(rounds, name, BareCore.name))
    return metrics


def _shares(rounds: list[dict[str, _Batch]], name: str, baseline: str) -> list[float]:
    return [batches[name].output_rate / batches[baseline].output_rate for batches in rounds]


def _added_s(rounds: list[dict[str, _Batch]], name: str, baseline: str) -> list[float]:
    return [batches[name].median_tpot_s - batches[baseline].median_tpot_s for batches in rounds]


def _goals(rounds: list[dict[str, _Batch]]) -> list[Goal]:
    """Against both baselines: the bare core, and the engine process as the gateway drives it."""
    goals = []
    for baseline in (BareCore.name, ThroughClient.name):
        if not {baseline, OverHttp.name} <= rounds[0].keys():
            continue
        goals.append(
            Goal(
                name=f"share of the {baseline}'s throughput that HTTP keeps",
                limit=_GOAL_SHARE,
                better="higher",
                value=statistics.median(_shares(rounds, OverHttp.name, baseline)),
            )
        )
        goals.append(
            Goal(
                name=f"time per token that HTTP adds to the {baseline}",
                limit=_GOAL_ADDED_MS,
                better="lower",
                value=statistics.median(_added_s(rounds, OverHttp.name, baseline)) * 1000,
                unit="ms",
            )
        )
    return goals


def _own_step_ms(rounds: list[dict[str, _Batch]]) -> float | None:
    steps = [b.step_s for batches in rounds for b in batches.values() if b.step_s is not None]
    return round(statistics.median(steps) * 1000, 3) if steps else None


def _limits(
    field: _Field, scenario: ThroughputScenario, rounds: list[dict[str, _Batch]]
) -> dict[str, float] | None:
    """Of the first contestant: the bare core, where it takes part."""
    engine = field.engine or (field.target.engine if field.target else None)
    traffic = model_traffic(engine.model_path) if engine else None
    if traffic is None:
        return None
    first = field.contestants[0].name
    step_s = statistics.median(batches[first].median_tpot_s for batches in rounds)
    if not step_s:
        return None  # all tokens came at once
    return traffic.utilisation(
        step_s,
        machine.read_bandwidth_bytes_per_s(),
        num_sequences=scenario.num_streams,
        context=scenario.prompt_tokens + scenario.output_tokens / 2,
    )


def _description(field: _Field) -> dict[str, object]:
    if field.target is not None:
        return field.target.description
    assert field.engine is not None
    return {"model": field.engine.name, "settings": engine_settings(field.engine.config)}
