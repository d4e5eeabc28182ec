"""novacron bench routing: many replicas behind one client, some of which die.

No server and no model: PacedEngine takes the time of an engine, everything above it is what a
server has: RecoveringClient over ReplicasClient. First in virtual time, which shows on any machine
what routing by prefix does against routing by load alone; then in real time, which shows what
deciding costs. Every token is compared with what it must be.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from novacron.bench.measurement import Measurement
from novacron.bench.paced_engine import PacedConfig, PacedEngine, token_at
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.target import TargetOptions
from novacron.bench.virtual_time import VirtualTimeLoop
from novacron.cluster.replicas_client import ReplicasClient
from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.client import EngineClient, EngineState
from novacron.engine.recovering_client import RecoveringClient
from novacron.errors import NovaCronError
from novacron.records.request import Request, SamplingParams
from novacron.records.routing import RoutingDecision

_DECISION_GOAL_MS: Final = 5.0
_RATE_GOAL: Final = 0.97  # of what was asked for
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class RoutingScenario(Scenario):
    num_replicas: int = option(64, "replicas")
    rate: float = option(1000.0, "requests a second", least=0.1)
    seconds: float = option(30.0, "of requests, for each run", least=0.1)
    deaths: float = option(0.1, "share of the replicas that die in a minute", least=0)
    num_prefixes: int = option(256, "shared prefixes; some are asked for far more than others")
    prefix_tokens: int = option(512, "length of a shared prefix")
    prompt_tokens: int = option(64, "length of what follows the prefix")
    output_tokens: int = option(24, "output length")
    prefill_us: float = option(100.0, "time that a prompt token takes", least=0.001)
    step_ms: float = option(2.0, "time that a step takes", least=0.001)
    row_us: float = option(200.0, "time that each running request adds to a step", least=0.001)
    restart_seconds: float = option(2.0, "from a death to being ready again", least=0)
    kv_blocks: int = option(2048, "blocks of 16 tokens that a replica caches")


@dataclass
class Outcome:
    """What came of one run."""

    first_token_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    decisions: list[RoutingDecision] = field(default_factory=list)
    num_lost: int = 0
    num_wrong: int = 0
    num_deaths: int = 0
    num_cut_off: int = 0  # calls that a death interrupted
    seconds: float = 0.0
    hit_rate: float = 0.0
    busiest: float = 0.0  # calls of the replica that got the most, over the mean

    @property
    def num_done(self) -> int:
        return len(self.latency_s)


async def run(
    options: TargetOptions, scenario: RoutingScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("routing", scenario, {"simulated": True})
    rows, outcomes = [], {}
    for name, by_prefix in (("load", False), ("prefix and load", True)):
        progress(f"by {name}, in virtual time")
        found = await asyncio.to_thread(simulate, scenario, by_prefix=by_prefix)
        rows.append(_row({"time": "virtual", "routing": name}, found))
        outcomes[name] = found
    progress("in real time")
    with measurement.client_cost():
        real = await drive(scenario, by_prefix=True)
    rows.append(_row({"time": "real", "routing": "prefix and load"}, real))
    columns = (
        Column("decision", "p50"),
        Column("decision", "p99"),
        Column("first_token", "p50"),
        Column("first_token", "p99"),
        Column("hit_rate", "mean"),
        Column("busiest", "mean"),
        Column("requests_per_s", "mean"),
        Column("deaths", "mean"),
        Column("cut_off", "mean"),
        Column("lost", "mean"),
        Column("wrong", "mean"),
    )
    goals = _goals(scenario, [*outcomes.values(), real], real)
    return measurement.finish(rows=rows, columns=columns, goals=goals)


def simulate(scenario: RoutingScenario, *, by_prefix: bool) -> Outcome:
    """In virtual time: the same on every machine, but for what deciding takes."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(drive(scenario, by_prefix=by_prefix))


async def drive(scenario: RoutingScenario, *, by_prefix: bool) -> Outcome:
    """Send the requests at their times, and end replicas at theirs."""
    outcome, engines = Outcome(), list[PacedEngine]()
    paced = PacedConfig(
        prefill_s=scenario.prefill_us * 1e-6,
        row_s=scenario.row_us * 1e-6,
        step_s=scenario.step_ms * 1e-3,
        restart_s=scenario.restart_seconds,
        num_blocks=scenario.kv_blocks,
    )

    def make(name: str, _: EngineConfig) -> PacedEngine:
        engines.append(PacedEngine(paced))
        return engines[-1]

    config = EngineConfig(
        model=ModelConfig(data_parallel_size=scenario.num_replicas),
        cache=CacheConfig(enable_prefix_caching=by_prefix),
        scheduler=SchedulerConfig(max_num_seqs=64),
    )
    replicas = ReplicasClient(config, make, on_decision=outcome.decisions.append)
    client = RecoveringClient(replicas, timeout_s=_MINUTE_S, most_waiting=10**6, seed=scenario.seed)
    await client.start()
    while len(engines) < scenario.num_replicas:  # noqa: ASYNC110 - they are made by a task
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    planned = _requests(scenario)
    gc.collect()
    gc.freeze()  # as a server does once it is ready
    started_s = loop.time()
    dying = asyncio.create_task(_end_some(engines, scenario, outcome))
    async with asyncio.TaskGroup() as calls:
        for at_s, request in planned:
            await asyncio.sleep(started_s + at_s - loop.time())
            calls.create_task(_ask(client, request, outcome))
    outcome.seconds = loop.time() - started_s
    gc.unfreeze()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    prompts = sum(one.num_prompt_tokens for one in engines)
    outcome.hit_rate = sum(one.num_found_tokens for one in engines) / max(1, prompts)
    num_calls = [one.num_calls for one in engines]
    outcome.busiest = max(num_calls) * len(num_calls) / max(1, sum(num_calls))
    await client.close()
    return outcome


def _requests(scenario: RoutingScenario) -> list[tuple[float, Request]]:
    """With when they come: at random, as from many callers. The n-th prefix is asked for half as
    often as the one at n / 2."""
    draw = random.Random(scenario.seed)
    prefixes = [
        tuple(draw.randrange(1000) for _ in range(scenario.prefix_tokens))
        for _ in range(scenario.num_prefixes)
    ]
    weights = [1 / (place + 1) for place in range(scenario.num_prefixes)]
    requests, at_s = list[tuple[float, Request]](), 0.0
    while (at_s := at_s + draw.expovariate(scenario.rate)) < scenario.seconds:
        [prefix] = draw.choices(prefixes, weights)
        own = tuple(draw.randrange(1000) for _ in range(scenario.prompt_tokens))
        request = Request(
            request_id=str(len(requests)),
            prompt_token_ids=prefix + own,
            sampling=SamplingParams(max_tokens=scenario.output_tokens, seed=len(requests)),
            arrival_time_s=at_s,
        )
        requests.append((at_s, request))
    return requests


async def _ask(client: EngineClient, request: Request, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    started_s, token_ids = loop.time(), list[int]()
    try:
        async for output in client.generate((request,)):
            if not token_ids and output.token_ids:
                outcome.first_token_s.append(loop.time() - started_s)
            token_ids += output.token_ids
            outcome.num_cut_off += output.pause_s is not None
    except NovaCronError:
        outcome.num_lost += 1
        return
    outcome.latency_s.append(loop.time() - started_s)
    expected = [token_at(request, place) for place in range(request.sampling.max_tokens or 0)]
    outcome.num_wrong += token_ids != expected


async def _end_some(
    engines: list[PacedEngine], scenario: RoutingScenario, outcome: Outcome
) -> None:
    """One after the other, evenly over the time; never the last that is ready."""
    per_s = scenario.deaths * scenario.num_replicas / _MINUTE_S
    draw = random.Random(scenario.seed)
    while per_s:
        await asyncio.sleep(1 / per_s)
        ready = [one for one in engines if one.state is EngineState.READY]
        if len(ready) > 1:
            draw.choice(ready).die()
            outcome.num_deaths += 1


def _row(labels: dict[str, str], found: Outcome) -> Row:
    return row(
        labels,
        decision=milliseconds([one.seconds for one in found.decisions]),
        first_token=milliseconds(found.first_token_s),
        latency=milliseconds(found.latency_s),
        hit_rate=metric("", "higher", [found.hit_rate]),
        busiest=metric("", "lower", [found.busiest]),
        requests_per_s=metric("", "higher", [found.num_done / max(1e-9, found.seconds)]),
        deaths=metric("", "neither", [float(found.num_deaths)]),
        cut_off=metric("", "neither", [float(found.num_cut_off)]),
        lost=metric("", "lower", [float(found.num_lost)]),
        wrong=metric("", "lower", [float(found.num_wrong)]),
    )


def _goals(scenario: RoutingScenario, all_of_them: list[Outcome], real: Outcome) -> list[Goal]:
    decisions = milliseconds([one.seconds for one in real.decisions])
    return [
        Goal(name="decision p99", limit=_DECISION_GOAL_MS, better="lower",
             value=decisions.summary.p99, unit="ms"),
        Goal(name="requests lost", limit=0.0, better="lower",
             value=float(sum(one.num_lost for one in all_of_them))),
        Goal(name="requests with other tokens", limit=0.0, better="lower",
             value=float(sum(one.num_wrong for one in all_of_them))),
        Goal(name="requests/s, of those that came", limit=_RATE_GOAL * scenario.rate,
             better="higher", value=round(real.num_done / max(1e-9, real.seconds), 1)),
    ]  # fmt: skip
