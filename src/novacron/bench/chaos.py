"""Exact recovery, tried: faults strike a server while clients read, and no client may notice more
than a pause.

The calls run undisturbed first, twice, because what differs without faults is no finding. Then they
run again and again under faults, each answer compared with the first.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from novacron.bench import server_metrics
from novacron.bench.chaos_calls import (
    KINDS,
    Answer,
    ChaosCall,
    Outcome,
    compare,
    count,
    make_calls,
    read_answer,
    with_tools,
)
from novacron.bench.faults import Fault, Injector, Kind, Victims
from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import ChaosScenario
from novacron.bench.target import TargetOptions, first_model, local_engine, open_target
from novacron.errors import ConfigError, NotReady, RequestFailed

_COLUMNS = (
    Column("pause"),
    Column("pause", "p95"),
    Column("pause", "p99"),
    Column("pause", "count"),
)
_POLL_S = 0.02
_BAD_REQUEST = 400
_GOAL_PAUSE_S = 10.0
_GOAL_PAUSE_BESIDE_S = 3.0  # with another replica
_KILLS: tuple[Kind, ...] = ("kill", "kill twice")


@dataclass
class Found:
    """What came of the rounds. `pauses_s`: of each stream that a fault met, how long nothing came
    from then on, by kind of fault; `several` where another one struck before something came."""

    expected: list[Answer]
    undisturbed: list[Outcome] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    pauses_s: dict[str, list[float]] = field(default_factory=dict)


class Chaos:
    """Rounds of calls on one server, whose process is known."""

    def __init__(
        self,
        client: HttpClient,
        model: str,
        server_pid: int,
        scenario: ChaosScenario,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._client = client
        self._model = model
        self._scenario = scenario
        self._progress = progress
        self.kinds = KINDS  # of calls
        self._calls = make_calls(len(KINDS), 4, scenario.seed)
        self._injector = Injector(
            Victims(server_pid), _kinds(scenario), scenario.seed, self._until_loading
        )

    async def run(self) -> Found:
        """Raises RequestFailed if calls fail without faults, ConfigError if there are no ranks to
        kill."""
        self._injector.check()
        self._progress("undisturbed")
        await self._leave_out_what_is_refused()
        found = Found([read_answer(one) for one in await self._ask_all()])
        for call, answer in zip(self._calls, found.expected, strict=True):
            if answer.error is not None:
                raise RequestFailed(f"Without faults, a call ({call.kind}) failed: {answer.error}")
        again = [read_answer(one) for one in await self._ask_all()]
        found.undisturbed = self._compare(found, again)
        while len(self._injector.faults) < self._scenario.num_faults:
            num = len(self._injector.faults)
            self._progress(f"{num} of {self._scenario.num_faults} faults")
            exchanges = await self._disturbed_round()
            faults = self._injector.faults[num:]
            if not faults:  # the calls ended first
                continue
            found.outcomes += self._compare(found, [read_answer(one) for one in exchanges])
            note_pauses(found, faults, exchanges)
        found.faults = self._injector.faults
        return found

    async def _leave_out_what_is_refused(self) -> None:
        """A model may have no form of tool calls, say."""
        first = {call.kind: call for call in self._calls}
        exchanges = await asyncio.gather(*map(self._ask, first.values()))
        refused = {
            kind for kind, one in zip(first, exchanges, strict=True) if one.status == _BAD_REQUEST
        }
        self.kinds = tuple(kind for kind in first if kind not in refused)
        self._calls = make_calls(
            self._scenario.num_streams, self._scenario.max_tokens, self._scenario.seed, self.kinds
        )

    async def _ask_all(self) -> list[Exchange]:
        return await asyncio.gather(*map(self._ask, self._calls))

    async def _ask(self, call: ChaosCall) -> Exchange:
        return await self._client.post(call.path, call.encoded(self._model))

    async def _disturbed_round(self) -> list[Exchange]:
        asking = asyncio.ensure_future(self._ask_all())
        disturbing = asyncio.ensure_future(self._disturb())
        try:
            return await asking
        finally:
            disturbing.cancel()
            await asyncio.gather(disturbing, return_exceptions=True)

    async def _disturb(self) -> None:
        scenario = self._scenario
        left = scenario.num_faults - len(self._injector.faults)
        for _ in range(min(scenario.faults_per_round, left)):
            await self._until(is_ready=True)
            await asyncio.sleep(self._injector.delay_s(scenario.longest_delay))
            await self._injector.strike()
            await self._until(is_ready=False)

    async def _until_loading(self) -> None:
        await self._until(is_ready=False)
        await asyncio.sleep(self._injector.delay_s(1.0))  # somewhere in its start

    async def _until(self, *, is_ready: bool) -> None:
        while True:
            try:
                is_whole = await self._is_whole()
            except NotReady:  # no server answers: then all calls are lost as well
                return
            if is_whole is is_ready:
                return
            await asyncio.sleep(_POLL_S)

    async def _is_whole(self) -> bool:
        """The server is ready, and so are all of its replicas, if it tells of them."""
        if not (await self._client.get("/ready")).ok:
            return False
        states = [one["state"] for one in await self.replicas()]
        return all(state == "ready" for state in states)

    async def replicas(self) -> Sequence[Mapping[str, Any]]:
        """None where the server is not one of ours."""
        exchange = await self._client.get("/api/v1/llm/cluster/status")
        if not exchange.ok:
            return ()
        found: Sequence[Mapping[str, Any]] = msgspec.json.decode(exchange.body).get("replicas", ())
        return found

    def _compare(self, found: Found, answers: Sequence[Answer]) -> list[Outcome]:
        outcomes = []
        for call, expected, answer in zip(self._calls, found.expected, answers, strict=True):
            outcomes.append(compare(expected, answer))
            if outcomes[-1] != "same":
                found.unexpected.append(f"{call.kind}: {outcomes[-1]} ({answer.error or 'whole'})")
        return outcomes


def note_pauses(found: Found, faults: Sequence[Fault], exchanges: Sequence[Exchange]) -> None:
    """Of each stream and each fault that met it, the longest silence from then to the next fault:
    what an engine said last may still arrive after its death."""
    ends_s = [*(fault.at_s for fault in faults[1:]), math.inf]
    for exchange in exchanges:
        if len(exchange.chunks) < 2:  # no stream
            continue
        gaps = list(pairwise([exchange.started_s, *(at_s for at_s, _ in exchange.chunks)]))
        struck: dict[tuple[float, float], list[Fault]] = {}
        for fault, end_s in zip(faults, ends_s, strict=True):
            after = [gap for gap in gaps if gap[1] > fault.at_s and gap[0] < end_s]
            if after and exchange.started_s < fault.at_s:
                struck.setdefault(_longest(after, fault.at_s), []).append(fault)
        for (before_s, after_s), those in struck.items():
            kind = those[0].kind if len(those) == 1 else "several"
            found.pauses_s.setdefault(kind, []).append(after_s - max(before_s, those[0].at_s))


def _longest(gaps: Sequence[tuple[float, float]], from_s: float) -> tuple[float, float]:
    return max(gaps, key=lambda gap: gap[1] - max(gap[0], from_s))


async def run(
    options: TargetOptions, scenario: ChaosScenario, progress: Callable[[str], None]
) -> BenchResult:
    local_engine(options)  # refuses a server at a URL, whose processes are not ours to kill
    settings = (f"heartbeat_timeout={scenario.heartbeat_timeout}s", *options.settings)
    progress("starting the server")
    with tempfile.TemporaryDirectory(prefix="novacron-chaos-") as folder:
        if not options.model and options.config is None:
            settings = (f"chat_template={with_tools(Path(folder))}", *settings)
        return await _run(replace(options, settings=settings), scenario, progress)


async def _run(
    options: TargetOptions, scenario: ChaosScenario, progress: Callable[[str], None]
) -> BenchResult:
    async with open_target(options) as target:
        assert target.server is not None
        model = await first_model(target.client)
        measurement = Measurement("chaos", scenario, target.description)
        started_s = time.perf_counter()
        chaos = Chaos(target.client, model, target.server.pid, scenario, progress)
        found = await chaos.run()
        num_replicas = len(await chaos.replicas())
        elapsed_s = time.perf_counter() - started_s
        metrics = await server_metrics.snapshot(target.client)
    rows = _rows(found)
    restarts = metrics.total("novacron_engine_restarts_total")
    return measurement.finish(
        rows=rows,
        columns=_COLUMNS,
        goals=_goals(found, num_replicas),
        facts={
            "kinds_of_calls": chaos.kinds,
            "num_replicas": num_replicas,
            "num_faults": len(found.faults),
            "num_restarts": restarts,
            "num_calls_under_faults": len(found.outcomes),
            "seconds": round(elapsed_s, 1),
            "undisturbed": count(found.undisturbed),
            "under_faults": count(found.outcomes),
            "unexpected": found.unexpected[:20],
        },
    )


def _rows(found: Found) -> list[Row]:
    return [
        row({"fault": kind}, pause=metric("s", "lower", pauses_s))
        for kind, pauses_s in sorted(found.pauses_s.items())
    ]


def _goals(found: Found, num_replicas: int) -> list[Goal]:
    counted = count(found.outcomes)
    killed_s = sorted(pause_s for kind in _KILLS for pause_s in found.pauses_s.get(kind, ()))
    goals = [
        Goal(name=f"calls {name} under faults", limit=0, better="lower", value=counted[name])
        for name in ("lost", "duplicated", "differing")
    ]
    if killed_s:
        p95_s = killed_s[min(len(killed_s) - 1, int(0.95 * len(killed_s)))]
        goals.append(
            Goal(
                name="pause of the streams of a killed engine, p95, "
                + ("another replica is ready" if num_replicas > 1 else "no other replica"),
                limit=_GOAL_PAUSE_BESIDE_S if num_replicas > 1 else _GOAL_PAUSE_S,
                better="lower",
                value=p95_s,
                unit="s",
            )
        )
    return goals


def _kinds(scenario: ChaosScenario) -> tuple[Kind, ...]:
    """Raises ConfigError for one that there is not."""
    try:
        return msgspec.convert(scenario.faults, tuple[Kind, ...])
    except msgspec.ValidationError:
        raise ConfigError(
            f"--faults is {','.join(scenario.faults)}: give any of kill, stop, kill twice, "
            "kill rank, stop rank."
        ) from None
