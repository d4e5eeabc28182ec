"""Rounds of calls on one server under faults, each answer compared with that of an undisturbed run.

The calls run undisturbed first, twice, because what differs without faults is no finding. Then they
run again and again under faults. Meanwhile the server is asked how it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from novacron.bench.chaos_calls import (
    KINDS,
    Answer,
    Outcome,
    compare,
    count,
    make_calls,
    read_answer,
)
from novacron.bench.chaos_findings import Journal, RoundRecord, note_pauses
from novacron.bench.faults import UNNOTICED, Fault, Injector, Kind, Site
from novacron.bench.held import HeldWatch
from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.scenario import ChaosScenario, SiteScenario
from novacron.bench.truth import Truth
from novacron.errors import ConfigError, NotReady, RequestFailed

_POLL_S = 0.02
_NOTICED_WITHIN_S = 15.0
_BAD_REQUEST = 400


@dataclass
class Found:
    """What came of a run. `faults` are those of this part of it."""

    expected: list[Answer]
    undisturbed: list[Outcome] = field(default_factory=list)
    rounds: list[RoundRecord] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def unexpected(self) -> list[str]:
        return [line for record in self.rounds for line in record.unexpected]


class Chaos:
    """Rounds of calls on a server, with what can be struck of it."""

    def __init__(
        self,
        client: HttpClient,
        model: str,
        site: Site,
        scenario: ChaosScenario,
        progress: Callable[[str], None] = lambda text: None,
        journal: Journal | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._site = site
        self._scenario = scenario
        self._progress = progress
        self._journal = journal or Journal(None, {}, ())
        self.kinds = KINDS  # of calls
        self._calls = make_calls(len(KINDS), 4, scenario.seed)
        self._injector = Injector(site, kinds_of(scenario), scenario.seed, self._until_loading)
        self._held = HeldWatch()

    async def run(self) -> Found:
        """Raises RequestFailed if calls fail without faults, ConfigError if a kind of fault finds
        nothing to strike."""
        self._injector.check()
        self._progress("undisturbed")
        await self._leave_out_what_is_refused()
        found = Found([read_answer(one) for one in await self._ask_all()])
        for call, answer in zip(self._calls, found.expected, strict=True):
            if answer.error is not None:
                raise RequestFailed(f"Without faults, a call ({call.kind}) failed: {answer.error}")
        again = [read_answer(one) for one in await self._ask_all()]
        found.undisturbed = self._compare(found.expected, again, RoundRecord(number=-1))
        self._injector.num_before = sum(len(one.faults) for one in self._journal.rounds)
        watching = asyncio.ensure_future(self._held.run())
        try:
            await self._all_rounds(found.expected)
        finally:
            watching.cancel()
        found.rounds, found.faults = self._journal.rounds, self._injector.faults
        return found

    async def _all_rounds(self, expected: Sequence[Answer]) -> None:
        while (num := self._num_faults) < self._scenario.num_faults:
            self._progress(f"{num} of {self._scenario.num_faults} faults")
            record = RoundRecord(number=len(self._journal.rounds))
            self._injector.begin_round(record.number)
            first, started_s = len(self._injector.faults), time.perf_counter()
            truth = Truth(self._client, self._site, self._held.spans)
            await self._until(is_whole=True)
            exchanges = await self._disturbed_round(truth)
            faults = self._injector.faults[first:]
            if not faults:  # the calls ended first
                continue
            record.faults = [fault.kind for fault in faults]
            answers = [read_answer(one) for one in exchanges]
            record.outcomes = count(self._compare(expected, answers, record))
            note_pauses(record, faults, exchanges, self._held.spans)
            record.mistaken_s = truth.mistaken_s
            record.num_looks = truth.num_looks
            record.num_contradictions = truth.num_contradictions
            record.num_called_dead = truth.num_called_dead
            record.seconds = round(time.perf_counter() - started_s, 1)
            self._journal.add(record)

    @property
    def _num_faults(self) -> int:
        return self._injector.num_before + len(self._injector.faults)

    async def _leave_out_what_is_refused(self) -> None:
        """A model may have no form of tool calls, say."""
        first = {call.kind: call for call in self._calls}
        exchanges = await asyncio.gather(
            *(self._client.post(call.path, call.encoded(self._model)) for call in first.values())
        )
        refused = {
            kind for kind, one in zip(first, exchanges, strict=True) if one.status == _BAD_REQUEST
        }
        self.kinds = tuple(kind for kind in first if kind not in refused)
        self._calls = make_calls(
            self._scenario.num_streams, self._scenario.max_tokens, self._scenario.seed, self.kinds
        )

    async def _ask_all(self) -> list[Exchange]:
        return await asyncio.gather(
            *(self._client.post(call.path, call.encoded(self._model)) for call in self._calls)
        )

    async def _disturbed_round(self, truth: Truth) -> list[Exchange]:
        asking = asyncio.ensure_future(self._ask_all())
        beside = [asyncio.ensure_future(self._disturb()), asyncio.ensure_future(truth.run())]
        try:
            exchanges = await asking
            await self._injector.wait_healed()
            return exchanges
        finally:
            for one in beside:
                one.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _disturb(self) -> None:
        scenario = self._scenario
        left = scenario.num_faults - self._num_faults
        for _ in range(min(scenario.faults_per_round, left)):
            await self._injector.wait_healed()
            await self._until(is_whole=True)
            await asyncio.sleep(self._injector.delay_s(scenario.longest_delay))
            fault = await self._injector.strike()
            if fault is not None and fault.kind not in UNNOTICED:
                await self._until(is_whole=False, within_s=_NOTICED_WITHIN_S)

    async def _until_loading(self) -> None:
        await self._until(is_whole=False)
        await asyncio.sleep(self._injector.delay_s(1.0))  # somewhere in its start

    async def _until(self, *, is_whole: bool, within_s: float | None = None) -> None:
        started_s = time.perf_counter()
        while within_s is None or time.perf_counter() - started_s < within_s:
            try:
                if await self._is_whole() is is_whole:
                    return
            except NotReady:  # no server answers: then all calls are lost as well
                return
            await asyncio.sleep(_POLL_S)

    async def _is_whole(self) -> bool:
        """The server is ready, and so are all of its replicas and workers, if it tells of them."""
        if not (await self._client.get("/ready")).ok:
            return False
        status = await self.status()
        return all(one["state"] == "ready" for one in status.get("replicas", ())) and all(
            one["status"] == "active" for one in status.get("workers", ())
        )

    async def status(self) -> Mapping[str, Any]:
        """Empty where the server is not one of ours."""
        exchange = await self._client.get("/api/v1/llm/cluster/status")
        if not exchange.ok:
            return {}
        found: Mapping[str, Any] = msgspec.json.decode(exchange.body)
        return found

    def _compare(
        self, expected: Sequence[Answer], answers: Sequence[Answer], record: RoundRecord
    ) -> list[Outcome]:
        outcomes = []
        for call, one, answer in zip(self._calls, expected, answers, strict=True):
            outcomes.append(compare(one, answer))
            if outcomes[-1] != "same":
                record.unexpected.append(f"{call.kind}: {outcomes[-1]} ({answer.error or 'whole'})")
        return outcomes


def kinds_of(scenario: SiteScenario) -> tuple[Kind, ...]:
    """Raises ConfigError for one that there is not."""
    try:
        return msgspec.convert(scenario.faults, tuple[Kind, ...])
    except msgspec.ValidationError:
        raise ConfigError(
            f"--faults is {','.join(scenario.faults)}: give any of kill, stop, kill twice, "
            "kill all, kill rank, stop rank, kill host, stop host, cut, partition, slow link, "
            "full disk."
        ) from None
