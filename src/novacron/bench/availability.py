"""Availability: the share of calls that are answered wholly and rightly, while something is killed
every minute. Calls come at random moments, whether or not those before have ended."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from novacron.bench.chaos_calls import KINDS, Answer, compare, count, make_calls, read_answer
from novacron.bench.chaos_findings import Journal, RoundRecord, total
from novacron.bench.chaos_rounds import kinds_of
from novacron.bench.chaos_site import open_site
from novacron.bench.faults import Injector, Site
from novacron.bench.held import HeldWatch
from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, metric, row
from novacron.bench.scenario import AvailabilityScenario
from novacron.bench.target import TargetOptions, first_model, local_engine
from novacron.bench.truth import Truth
from novacron.errors import NotReady, RequestFailed

_COLUMNS = (
    Column("seconds"), Column("seconds", "p95"), Column("seconds", "p99"),
    Column("seconds", "count"),
)  # fmt: skip
_BAD_REQUEST = 400
_ALL = "all"
_STRUCK = "met a fault"


class Soak:
    """Minute after minute of calls on one server."""

    def __init__(
        self,
        client: HttpClient,
        model: str,
        site: Site,
        scenario: AvailabilityScenario,
        journal: Journal,
        progress: Callable[[str], None],
    ) -> None:
        self._client, self._model = client, model
        self._site, self._scenario = site, scenario
        self._journal, self._progress = journal, progress
        self._injector = Injector(site, kinds_of(scenario), scenario.seed, self._at_once)
        self._held = HeldWatch()
        self._bodies: list[tuple[str, bytes]] = []
        self._expected: list[Answer] = []

    async def run(self) -> None:
        """Until the journal has all minutes. Raises RequestFailed if calls fail without faults,
        ConfigError if a kind of fault finds nothing to strike."""
        self._injector.check()
        await self._ask_undisturbed()
        self._injector.num_before = sum(len(one.faults) for one in self._journal.rounds)
        watching = asyncio.ensure_future(self._held.run())
        try:
            while (number := len(self._journal.rounds)) * self._scenario.every_s < (
                self._scenario.minutes * 60
            ):
                kept = total(self._journal.rounds, "outcomes")
                self._progress(f"{number} faults, {kept}")
                self._journal.add(await self._span(number))
        finally:
            watching.cancel()

    async def _ask_undisturbed(self) -> None:
        self._progress("undisturbed")
        scenario = self._scenario
        calls = make_calls(scenario.num_calls, scenario.max_tokens, scenario.seed)
        for call in calls:
            exchange = await self._client.post(call.path, call.encoded(self._model))
            if exchange.status == _BAD_REQUEST:  # a model may have no form of tool calls, say
                continue
            answer = read_answer(exchange)
            if answer.error is not None:
                raise RequestFailed(f"Without faults, a call ({call.kind}) failed: {answer.error}")
            self._bodies.append((call.path, call.encoded(self._model)))
            self._expected.append(answer)

    async def _span(self, number: int) -> RoundRecord:
        """From one fault to the next. Its calls are all waited for."""
        scenario, record = self._scenario, RoundRecord(number=number)
        self._injector.begin_round(number)
        draw, truth = (
            random.Random(f"{scenario.seed}-{number}-calls"),
            Truth(self._client, self._site, self._held.spans),
        )
        looking = asyncio.ensure_future(truth.run())
        begun_s = time.perf_counter()
        strike_s = begun_s + self._injector.delay_s(scenario.every_s)
        asking: list[tuple[int, asyncio.Task[Exchange]]] = []
        next_s, struck_s = begun_s, 0.0
        while (now_s := time.perf_counter()) < begun_s + scenario.every_s:
            if not struck_s and now_s >= strike_s:
                fault = await self._injector.strike()
                struck_s = now_s if fault is None else fault.at_s
                record.faults += [] if fault is None else [fault.kind]
            elif now_s >= next_s:
                place = draw.randrange(len(self._bodies))
                asking.append((place, asyncio.ensure_future(self._ask(place))))
                next_s = max(next_s + draw.expovariate(scenario.rate), now_s - 1.0)
            else:
                soonest_s = next_s if struck_s else min(next_s, strike_s)
                await asyncio.sleep(min(soonest_s, begun_s + scenario.every_s) - now_s)
        exchanges = await asyncio.gather(*(task for _, task in asking))
        await self._injector.wait_healed()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        self._judge(record, [place for place, _ in asking], exchanges, struck_s)
        for name in ("mistaken_s", "num_looks", "num_contradictions", "num_called_dead"):
            setattr(record, name, getattr(truth, name))
        record.seconds = round(time.perf_counter() - begun_s, 1)
        return record

    async def _ask(self, place: int) -> Exchange:
        path, body = self._bodies[place]
        started_s = time.perf_counter()
        try:
            return await self._client.post(path, body)
        except NotReady as error:
            return Exchange(started_s, time.perf_counter(), error=str(error))

    def _judge(
        self,
        record: RoundRecord,
        places: Sequence[int],
        exchanges: Sequence[Exchange],
        struck_s: float,
    ) -> None:
        outcomes = []
        for place, exchange in zip(places, exchanges, strict=True):
            answer = read_answer(exchange)
            outcomes.append(compare(self._expected[place], answer))
            if outcomes[-1] != "same":
                kind = KINDS[place % len(KINDS)]
                record.unexpected.append(f"{kind}: {outcomes[-1]} ({answer.error or 'whole'})")
            if any(
                begin < exchange.ended_s and end > exchange.started_s
                for begin, end in self._held.spans
            ):
                record.num_left_out += 1
                continue
            took_s = exchange.ended_s - exchange.started_s
            record.pauses_s.setdefault(_ALL, []).append(took_s)
            if struck_s and exchange.started_s <= struck_s <= exchange.ended_s:
                record.pauses_s.setdefault(_STRUCK, []).append(took_s)
        record.outcomes = count(outcomes)

    async def _at_once(self) -> None:
        """A second kill follows at once."""


async def run(
    options: TargetOptions, scenario: AvailabilityScenario, progress: Callable[[str], None]
) -> BenchResult:
    local_engine(options)  # refuses a server at a URL, whose processes are not ours to kill
    kinds_of(scenario)
    journal = Journal(
        Path(scenario.journal) if scenario.journal else None,
        {**asdict(scenario), "minutes": None, "journal": None},
        options.settings,
    )
    async with open_site(options, scenario, progress) as (target, site):
        measurement = Measurement("availability", scenario, target.description)
        model = await first_model(target.client)
        await Soak(target.client, model, site, scenario, journal, progress).run()
        status = await target.client.get("/api/v1/llm/cluster/status")
    return _result(measurement, journal.rounds, _num_replicas(status), scenario)


def _num_replicas(status: Exchange) -> int:
    return len(msgspec.json.decode(status.body)["replicas"]) if status.ok else 1


def _result(
    measurement: Measurement,
    rounds: Sequence[RoundRecord],
    num_replicas: int,
    scenario: AvailabilityScenario,
) -> BenchResult:
    outcomes: Mapping[str, int] = total(rounds, "outcomes")
    num_calls = sum(outcomes.values())
    facts: dict[str, Any] = {
        "num_replicas": num_replicas,
        "minutes": round(len(rounds) * scenario.every_s / 60, 1),
        "num_faults": sum(len(record.faults) for record in rounds),
        "num_calls": num_calls,
        "outcomes": outcomes,
        "availability_at_least_with_95_percent_certainty": round(
            lower_bound(outcomes.get("same", 0), num_calls), 6
        ),
        "unexpected": [line for record in rounds for line in record.unexpected][:20],
        "called_active_though": {
            how: {"times": len(s), "longest_s": round(max(s), 2)}
            for how, s in total(rounds, "mistaken_s").items()
        },
        "looks_at_what_it_says_of_itself": sum(record.num_looks for record in rounds),
        "contradictions": sum(record.num_contradictions for record in rounds),
        "num_calls_not_timed": sum(record.num_left_out for record in rounds) or None,
        "a_fault_every_s": scenario.every_s,
    }
    return measurement.finish(
        rows=[
            row({"calls": name}, seconds=metric("s", "lower", samples))
            for name, samples in sorted(total(rounds, "pauses_s").items())
        ],
        columns=_COLUMNS,
        goals=[
            Goal(
                name="share of calls answered wholly and rightly",
                limit=1.0,
                better="higher",
                value=outcomes.get("same", 0) / max(1, num_calls),
            )
        ],
        facts=facts,
    )


def lower_bound(num_good: int, num: int, z: float = 1.645) -> float:
    """Of the share of which `num_good` of `num` are a sample, by Wilson's interval, one-sided."""
    if num == 0:
        return 0.0
    share, z2 = num_good / num, z * z
    middle = share + z2 / (2 * num)
    spread = z * ((share * (1 - share) + z2 / (4 * num)) / num) ** 0.5
    return float((middle - spread) / (1 + z2 / num))
