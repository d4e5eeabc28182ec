"""novacron bench gateway: what stands between HTTP and an engine, and what it takes.

Two servers of our own whose engines answer at once: one that is open, and one whose callers have
keys of the accounts database, quotas that each call is reserved and settled against, and several
replicas to choose from. Both get the same requests at random moments, at a steady rate, in turns.
Then the second one gets many more, and its memory is watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import psutil

from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.server import ServerPlan, ServerProcess, running_server
from novacron.bench.target import TargetOptions
from novacron.errors import RequestFailed

_PACED: Final = (sys.executable, "-m", "novacron.cli.paced_server")
_ADMIN: Final = (sys.executable, "-c", "from novacron.cli.main import main; main()", "admin")
_TENANT: Final = "acme"
_TOKENS: Final = 10**12  # a day: never reached, always counted
_MIB: Final = 2**20
_GOAL_P50_S, _GOAL_P95_S = 0.002, 0.008
_GOAL_GROWTH: Final = 0.05
_COLUMNS: Final = (
    Column("time", "p50"), Column("time", "p95"), Column("time", "p99"),
    Column("cpu", "mean"), Column("requests", "mean"), Column("memory", "mean"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GatewayScenario(Scenario):
    rate: float = option(500.0, "requests a second", least=1.0)
    seconds: float = option(20.0, "of a round", least=0.1)
    rounds: int = option(3, "rounds of each server")
    prompt_tokens: int = option(64, "prompt length")
    num_keys: int = option(8, "keys, which take turns")
    num_replicas: int = option(4, "engines behind the server with accounts")
    num_watched: int = option(100_000, "further requests while memory is watched", least=0)
    num_streams: int = option(16, "of them at a time")


@dataclass
class _Measured:
    """Of one server, over its rounds."""

    name: str
    times_s: list[float] = field(default_factory=list)
    cpu_shares: list[float] = field(default_factory=list)


async def run(
    options: TargetOptions, scenario: GatewayScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("gateway", scenario, {"engines": "paced, taking no time"})
    with tempfile.TemporaryDirectory(prefix="novacron-bench-") as folder:
        environment = {**options.environment, "NOVACRON_STATE_DIR": folder}
        open_plan = ServerPlan((), dict(options.environment), _PACED)
        full = ("--data-parallel-size", str(scenario.num_replicas))
        full_plan = ServerPlan(full, environment, _PACED)
        progress("making accounts")
        keys = await _make_accounts(environment, scenario.num_keys)
        opened, guarded = _Measured("open"), _Measured("keys, quotas, replicas")
        async with _running(open_plan) as bare, _running(full_plan) as whole:
            for turn in range(-1, scenario.rounds):
                progress(f"round {max(turn, 0) + 1} of {scenario.rounds}")
                await _round(bare, opened, scenario, turn, ("",))
                await _round(whole, guarded, scenario, turn, keys)
            rows = [_row(one) for one in (opened, guarded)]
            goals = _time_goals(scenario, guarded)
            if scenario.num_watched:
                more, growth = await _watch_memory(whole, scenario, keys, progress)
                rows += more
                goals.append(growth)
    return measurement.finish(rows=rows, columns=_COLUMNS, goals=goals)


@contextlib.asynccontextmanager
async def _running(plan: ServerPlan) -> AsyncIterator[ServerProcess]:
    async with running_server(plan) as server:
        client = HttpClient(server.url)
        await server.wait_for(client, "/ready")
        client.close()
        yield server


async def _make_accounts(environment: Mapping[str, str], num_keys: int) -> tuple[str, ...]:
    """A tenant with users, a key each, and quotas that never refuse."""
    await _admin(environment, "tenant", "add", _TENANT)
    limits = ("--tokens-per-day", str(_TOKENS), "--concurrent-requests", "100000")
    await _admin(environment, "quota", "set", "tenant", _TENANT, *limits)
    keys = []
    for number in range(num_keys):
        user = f"user-{number}"
        await _admin(environment, "user", "add", user, "--tenant", _TENANT)
        made = await _admin(environment, "key", "add", "--user", user)
        keys.append(made.decode().strip())
    return tuple(keys)


async def _admin(environment: Mapping[str, str], *arguments: str) -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *_ADMIN, *arguments, stdout=pipe, stderr=pipe, env=dict(environment)
    )
    told, complaint = await process.communicate()
    if process.returncode:
        raise RequestFailed(f"novacron admin {arguments[0]} failed: {complaint.decode()}")
    return told


async def _round(
    server: ServerProcess,
    measured: _Measured,
    scenario: GatewayScenario,
    turn: int,
    keys: Sequence[str],
) -> None:
    """Requests at random moments, the same for every server. A turn below 0 only warms up."""
    rng = random.Random(f"gateway/{scenario.seed}/{turn}")
    clients = [HttpClient(server.url, key or None) for key in keys]
    body = _body(rng, scenario.prompt_tokens)
    process = psutil.Process(server.pid)
    cpu_s, started_s = sum(process.cpu_times()[:2]), time.perf_counter()
    sent: list[asyncio.Task[float]] = []
    due_s, seconds = 0.0, scenario.seconds if turn >= 0 else min(2.0, scenario.seconds)
    while due_s < seconds:
        await asyncio.sleep(started_s + due_s - time.perf_counter())
        client = clients[len(sent) % len(clients)]
        sent.append(asyncio.create_task(_ask(client, body, started_s + due_s)))
        due_s += rng.expovariate(scenario.rate)
    times_s = await asyncio.gather(*sent)
    elapsed_s = time.perf_counter() - started_s
    for client in clients:
        client.close()
    if turn >= 0:
        measured.times_s += times_s
        measured.cpu_shares.append((sum(process.cpu_times()[:2]) - cpu_s) / elapsed_s)


async def _ask(client: HttpClient, body: bytes, due_s: float) -> float:
    """Seconds from when the request was to be sent to its end: a client that is late counts."""
    exchange = await client.post("/v1/completions", body)
    _check(exchange)
    return exchange.ended_s - due_s


def _check(exchange: Exchange) -> None:
    if not exchange.ok:
        raise RequestFailed(f"A request failed: {exchange.status} {exchange.body[:500]!r}")


def _body(rng: random.Random, num_tokens: int) -> bytes:
    question: dict[str, Any] = {"prompt": [rng.randrange(10, 3000) for _ in range(num_tokens)]}
    return msgspec.json.encode({**question, "max_tokens": 1, "temperature": 0})


async def _watch_memory(
    server: ServerProcess,
    scenario: GatewayScenario,
    keys: Sequence[str],
    progress: Callable[[str], None],
) -> tuple[list[Row], Goal]:
    """Memory after a tenth of the requests, when everything has been used, and after all."""
    rng = random.Random(f"gateway/{scenario.seed}/memory")
    process, left = psutil.Process(server.pid), scenario.num_watched
    readings: list[tuple[int, float]] = []

    async def keep_asking(client: HttpClient) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            if left % (scenario.num_watched // 10 or 1) == 0:
                readings.append((scenario.num_watched - left, process.memory_info().rss))
                progress(f"{left:,} more requests")
            _check(await client.post("/v1/completions", _body(rng, scenario.prompt_tokens)))

    started_s = time.perf_counter()
    clients = [HttpClient(server.url, keys[i % len(keys)]) for i in range(scenario.num_streams)]
    await asyncio.gather(*map(keep_asking, clients))
    rate = scenario.num_watched / (time.perf_counter() - started_s)
    for client in clients:
        client.close()
    rows = [
        row(
            {"server": "keys, quotas, replicas", "load": f"after {count:,}, {rate:,.0f} a second"},
            memory=metric("MiB", "lower", [rss / _MIB]),
        )
        for count, rss in (readings[0], readings[-1])
    ]
    growth = Goal(
        name=f"growth of memory from {readings[0][0]:,} to {readings[-1][0]:,} requests",
        limit=_GOAL_GROWTH,
        better="lower",
        value=readings[-1][1] / readings[0][1] - 1,
    )
    return rows, growth


def _row(one: _Measured) -> Row:
    return row(
        {"server": one.name, "load": "steady"},
        time=milliseconds(one.times_s),
        cpu=metric("cores", "lower", one.cpu_shares),
        requests=metric("", "neither", [len(one.times_s)]),
    )


def _time_goals(scenario: GatewayScenario, guarded: _Measured) -> list[Goal]:
    times = milliseconds(guarded.times_s).summary
    limits = {"p50": _GOAL_P50_S * 1e3, "p95": _GOAL_P95_S * 1e3}
    rate = f"at {scenario.rate:g} requests a second with keys, quotas and replicas"
    return [
        Goal(
            name=f"{name} of a whole answer {rate}",
            limit=limit,
            better="lower",
            value=getattr(times, name),
            unit="ms",
        )
        for name, limit in limits.items()
    ]
