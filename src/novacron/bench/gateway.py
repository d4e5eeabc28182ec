"""novacron bench gateway: what stands between HTTP and an engine, and what it takes.

Two servers of our own whose engines answer at once: one that is open, and one whose callers have
keys of the accounts database, quotas that each call is reserved and settled against, an audit log,
and several replicas to choose from. Both get the same requests at random moments, at a steady rate,
in turns. Then the second one gets many more, and its memory is watched.
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

from novacron.bench.http_client import HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.open_loop import drive, post
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.server import ServerPlan, ServerProcess, running_server
from novacron.bench.target import TargetOptions
from novacron.errors import RequestFailed

_SERVER: Final = (sys.executable, "-m", "novacron.cli.instant_server")
_ADMIN: Final = (sys.executable, "-c", "from novacron.cli.main import main; main()", "admin")
_PATH: Final = "/v1/completions"
_WHOLE: Final = "keys, quotas, audit, replicas"
_TENANT: Final = "acme"
_TOKENS: Final = 10**12  # a day: never reached, always counted
_MIB: Final = 2**20
_WARM_UP_S: Final = 3.0
_GOAL_P50_S, _GOAL_P95_S = 0.002, 0.008
_GOAL_GROWTH: Final = 0.05
_WATCHED_AT_ONCE: Final = 10_000  # requests between two looks at the memory
_COLUMNS: Final = (
    Column("time", "p50"), Column("time", "p95"), Column("time", "p99"),
    Column("cpu", "mean"), Column("cores", "mean"), Column("requests", "mean"),
    Column("rate", "mean"), Column("memory", "min"), Column("memory", "max"),
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
    """A server and its answers, over its rounds. `requests` have its callers take turns."""

    name: str
    server: ServerProcess
    requests: Sequence[bytes]
    times_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of a request, in all of its processes
    cores: list[float] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server.port

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.server.tree())

    def memory_mib(self) -> float:
        return float(sum(one.memory_info().rss for one in self.server.tree()) / _MIB)


async def run(
    options: TargetOptions, scenario: GatewayScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("gateway", scenario, {"engines": "instant"})
    with tempfile.TemporaryDirectory(prefix="novacron-bench-") as folder:
        environment = {**options.environment, "NOVACRON_STATE_DIR": folder}
        progress("making accounts")
        keys = await _make_accounts(environment, scenario.num_keys)
        replicas = ("--data-parallel-size", str(scenario.num_replicas))
        body = _body(scenario)
        async with (
            _running(ServerPlan((), dict(options.environment), _SERVER)) as bare,
            _running(ServerPlan(replicas, environment, _SERVER)) as whole,
        ):
            opened = _Measured("open", bare, _requests(body, ("",)))
            guarded = _Measured(_WHOLE, whole, _requests(body, keys))
            for turn in range(-1, scenario.rounds):
                progress(f"round {max(turn, 0) + 1} of {scenario.rounds}")
                for one in (opened, guarded):
                    with measurement.client_cost():
                        await asyncio.to_thread(_round, one, scenario, turn)
            rows = [_row(opened), _row(guarded)]
            goals = _time_goals(scenario, guarded)
            if scenario.num_watched:
                memory = await asyncio.to_thread(_watch_memory, guarded, scenario, progress)
                rows.append(memory)
                goals.append(_growth(memory))
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


def _round(measured: _Measured, scenario: GatewayScenario, turn: int) -> None:
    """Requests at random moments, the same for every server. A turn below 0 only warms up."""
    rng = random.Random(f"gateway/{scenario.seed}/{turn}")
    seconds = scenario.seconds if turn >= 0 else min(_WARM_UP_S, scenario.seconds)
    due_s = [0.0]
    while due_s[-1] < seconds:
        due_s.append(due_s[-1] + rng.expovariate(scenario.rate))
    cpu_s, started_s = measured.cpu_s(), time.perf_counter()
    times_s = drive(measured.address, measured.requests, due_s)
    elapsed_s, cpu_s = time.perf_counter() - started_s, measured.cpu_s() - cpu_s
    if turn >= 0:
        measured.times_s += times_s
        measured.cpu_us.append(cpu_s / len(times_s) * 1e6)
        measured.cores.append(cpu_s / elapsed_s)


def _body(scenario: GatewayScenario) -> bytes:
    rng = random.Random(f"gateway/{scenario.seed}")
    prompt = [rng.randrange(10, 3000) for _ in range(scenario.prompt_tokens)]
    question: dict[str, Any] = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
    return msgspec.json.encode(question)


def _requests(body: bytes, keys: Sequence[str]) -> list[bytes]:
    headers = [f"Authorization: Bearer {key}\r\n" if key else "" for key in keys]
    return [post("localhost", _PATH, one, body) for one in headers]


def _watch_memory(
    measured: _Measured, scenario: GatewayScenario, progress: Callable[[str], None]
) -> Row:
    """A closed loop, and the memory of all the server's processes after every 10,000 requests."""
    readings_mib: list[float] = []
    started_s, left = time.perf_counter(), scenario.num_watched
    while left > 0:
        count = min(left, _WATCHED_AT_ONCE)
        now = [0.0] * count
        drive(measured.address, measured.requests, now, most_at_once=scenario.num_streams)
        left -= count
        readings_mib.append(measured.memory_mib())
        progress(f"{left:,} more requests; {readings_mib[-1]:.1f} MiB")
    rate = scenario.num_watched / (time.perf_counter() - started_s)
    return row(
        {"server": measured.name, "load": f"{scenario.num_streams} at a time"},
        requests=metric("", "neither", [scenario.num_watched]),
        rate=metric("1/s", "higher", [rate]),
        memory=metric("MiB", "lower", readings_mib),
    )


def _growth(watched: Row) -> Goal:
    """From a tenth of the requests on, when everything has been used, to the end."""
    readings = watched.metrics["memory"].samples
    total = watched.metrics["requests"].summary.max
    first = readings[(len(readings) - 1) // 10]
    return Goal(
        name=f"growth of memory from a tenth of {total:,.0f} requests to all of them",
        limit=_GOAL_GROWTH,
        better="lower",
        value=readings[-1] / first - 1,
    )


def _row(one: _Measured) -> Row:
    return row(
        {"server": one.name, "load": "steady"},
        time=milliseconds(one.times_s),
        cpu=metric("us", "lower", one.cpu_us),
        cores=metric("cores", "lower", one.cores),
        requests=metric("", "neither", [len(one.times_s)]),
    )


def _time_goals(scenario: GatewayScenario, guarded: _Measured) -> list[Goal]:
    times = milliseconds(guarded.times_s).summary
    limits = {"p50": _GOAL_P50_S * 1e3, "p95": _GOAL_P95_S * 1e3}
    rate = f"at {scenario.rate:g} requests a second with {_WHOLE}"
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
