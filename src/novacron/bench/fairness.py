"""Fair shares, measured through HTTP: several API keys on one server, one of which sends 20 times
as much; and requests of high priority beside a flood of low.

Each condition and its opposite take turns, so that what the machine does meanwhile meets both.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import FairnessScenario
from novacron.bench.target import (
    Target,
    TargetOptions,
    check,
    encode_request,
    local_engine,
    open_target,
)
from novacron.bench.transcript import Transcript, read_transcript
from novacron.errors import ConfigError

_COLUMNS = (
    Column("served"),
    Column("ttft"),
    Column("ttft", "p90"),
    Column("ttft", "p99"),
    Column("ttft", "count"),
)
_GOAL_JAIN = 0.95
_GOAL_QUIET = 1.5
_GOAL_HIGH = 1.3
_HIGH, _NORMAL, _LOW = -10, 0, 10


@dataclass(frozen=True)
class Sender:
    """One API key that sends requests of one priority, new prompts each time."""

    client: HttpClient
    target: Target
    scenario: FairnessScenario
    name: str
    priority: int = _NORMAL

    async def ask(self, number: int, output_tokens: int) -> Exchange:
        rng = random.Random(f"fairness/{self.scenario.seed}/{self.name}/{number}")
        prompt = self.target.maker.draw(rng, self.scenario.prompt_tokens)
        body = encode_request(
            self.target.model,
            {"prompt": prompt},
            output_tokens,
            ignore_eos=True,
            skip_special_tokens=False,
            priority=self.priority,
        )
        return await self.client.post("/v1/completions", body)


@dataclass
class Stream:
    """Requests one after the other, from when it starts until it is cancelled."""

    sender: Sender
    name: str
    done: list[Exchange] = field(default_factory=list)

    async def run(self) -> None:
        number = 0
        while True:
            name = replace(self.sender, name=f"{self.sender.name}/{self.name}")
            self.done.append(await name.ask(number, self.sender.scenario.output_tokens))
            number += 1


@contextlib.asynccontextmanager
async def flood(sender: Sender, num_streams: int, run: str) -> AsyncIterator[list[Stream]]:
    """`num_streams` at once of one sender, while the body runs."""
    streams = [Stream(sender, f"{run}/{number}") for number in range(num_streams)]
    tasks = [asyncio.ensure_future(stream.run()) for stream in streams]
    try:
        await asyncio.sleep(sender.scenario.settling)
        yield streams
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(
    options: TargetOptions, scenario: FairnessScenario, progress: Callable[[str], None]
) -> BenchResult:
    local_engine(options)  # refuses a server at a URL, whose keys we do not have
    if options.route != "completions":
        raise ConfigError("Fairness is measured with --route completions.")
    keys = [f"novacron-bench-{number}" for number in range(scenario.num_tenants)]
    settings = (*options.settings, f"api_key={','.join(keys)}")
    progress("starting the server")
    async with open_target(replace(options, settings=settings, api_key=keys[0])) as target:
        assert target.server is not None
        measurement = Measurement("fairness", scenario, target.description)
        clients = [HttpClient(target.server.url, key) for key in keys]
        try:
            with measurement.client_cost():
                rows, goals = await _measure(target, scenario, clients, progress)
        finally:
            for client in clients:
                client.close()
        return measurement.finish(rows=rows, columns=_COLUMNS, goals=goals)


async def _measure(
    target: Target,
    scenario: FairnessScenario,
    clients: Sequence[HttpClient],
    progress: Callable[[str], None],
) -> tuple[list[Row], list[Goal]]:
    senders = [
        Sender(client, target, scenario, f"tenant {number}")
        for number, client in enumerate(clients)
    ]
    progress("shares")
    short = replace(scenario, prompt_tokens=scenario.share_prompt_tokens)
    served = await _shares([replace(sender, scenario=short) for sender in senders], scenario)
    rows = [
        row(
            {"load": "all send more than they get", "sender": sender.name, "streams": streams},
            served=metric("tok/s", "neither", [tokens / scenario.seconds]),
        )
        for (sender, streams), tokens in zip(_streams(senders, scenario), served, strict=True)
    ]
    goals = [
        Goal(
            name=f"Jain's index of the tokens served to {len(senders)} tenants, one of which sends "
            f"{scenario.factor} times as much",
            limit=_GOAL_JAIN,
            better="higher",
            value=round(jain(served), 4),
        )
    ]
    loud, quiet = senders[1], senders[-1]
    high, low = replace(senders[0], priority=_HIGH), replace(senders[0], priority=_LOW)
    for name, sender, noise, limit in (
        ("a quiet tenant", quiet, loud, _GOAL_QUIET),
        ("high priority", high, low, _GOAL_HIGH),
    ):
        alone, beside = await _compare(name, sender, noise, scenario, progress)
        rows += [
            row({"load": "none", "sender": name, "streams": 1}, ttft=milliseconds(alone)),
            row(
                {"load": f"{scenario.factor} streams", "sender": name, "streams": 1},
                ttft=milliseconds(beside),
            ),
        ]
        share = rows[-1].metrics["ttft"].summary.p99 / rows[-2].metrics["ttft"].summary.p99
        goals.append(
            Goal(
                name=f"p99 TTFT of {name} beside {scenario.factor} streams of "
                + ("another" if sender is quiet else "low priority")
                + ", share of its value alone",
                limit=limit,
                better="lower",
                value=round(share, 3),
            )
        )
    return rows, goals


def _streams(senders: Sequence[Sender], scenario: FairnessScenario) -> list[tuple[Sender, int]]:
    """How many each has at once; the second one is loud."""
    return [
        (sender, scenario.num_streams * (scenario.factor if number == 1 else 1))
        for number, sender in enumerate(senders)
    ]


async def _shares(senders: Sequence[Sender], scenario: FairnessScenario) -> list[int]:
    """Tokens of requests that ended within some seconds, by tenant."""
    async with contextlib.AsyncExitStack() as stack:
        floods = await asyncio.gather(
            *(
                stack.enter_async_context(flood(sender, num, "shares"))
                for sender, num in _streams(senders, scenario)
            )
        )
        begin_s = time.perf_counter()
        await asyncio.sleep(scenario.seconds)
        end_s = time.perf_counter()
    return [
        sum(
            one.num_prompt_tokens + one.num_output_tokens
            for one in _transcripts(streams)
            if begin_s <= one.started_s + one.e2e_s < end_s
        )
        for streams in floods
    ]


def _transcripts(streams: Sequence[Stream]) -> list[Transcript]:
    return check([read_transcript(exchange) for stream in streams for exchange in stream.done])


async def _compare(
    name: str,
    sender: Sender,
    noise: Sender,
    scenario: FairnessScenario,
    progress: Callable[[str], None],
) -> tuple[list[float], list[float]]:
    """Times to the first token, alone and beside a flood of `noise`, in turn."""
    alone: list[float] = []
    beside: list[float] = []
    for turn in range(scenario.rounds):
        progress(f"{name}, round {turn + 1} of {scenario.rounds}")
        await asyncio.sleep(scenario.settling)
        alone += await _first_tokens(sender, scenario, f"alone {turn}")
        async with flood(noise, scenario.factor, f"{name}/{turn}") as streams:
            await _first_tokens(sender, replace(scenario, num_requests=1), f"first {turn}")
            beside += await _first_tokens(sender, scenario, f"beside {turn}")
        _transcripts(streams)
    return alone, beside


async def _first_tokens(sender: Sender, scenario: FairnessScenario, run: str) -> list[float]:
    """Of requests one after the other, with pauses between that are never the same."""
    one = replace(sender, name=f"{sender.name}/{run}")
    rng = random.Random(f"{scenario.seed}/{run}")
    exchanges = []
    for number in range(scenario.num_requests):
        await asyncio.sleep(rng.random() * 2 * scenario.pause)
        exchanges.append(await one.ask(number, scenario.quiet_output_tokens))
    return [one.ttft_s for one in check([read_transcript(exchange) for exchange in exchanges])]


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/n if one has all."""
    squares = sum(share * share for share in shares)
    return float(sum(shares) ** 2 / (len(shares) * squares)) if squares else 0.0
