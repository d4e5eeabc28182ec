"""novacron bench ledger: does the ledger equal what engines have computed, whoever is killed?

Two coordinators with a process each share a database and send thousands of requests at once, of
tenants whose day has too few tokens for all of them. They are killed at random moments and started
again; clients send what has no answer again. At the end, when the leases of the dead are over, the
ledger is compared with the engines' journals, call by call. Then one coordinator alone at a steady
rate shows what a reservation takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from novacron.accounts.database import audit
from novacron.accounts.database.entry_rows import EXPIRED, SETTLED, VOID
from novacron.accounts.database.store import Store
from novacron.accounts.quota import Quota
from novacron.bench import engine_journal
from novacron.bench.ledger_job import LedgerJob, LedgerJobReport
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.target import TargetOptions
from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError

_COLUMNS: Final = (
    Column("reserve", "p50"), Column("reserve", "p95"), Column("reserve", "p99"),
    Column("requests", "mean"), Column("cpu", "mean"),
)  # fmt: skip
_POLL_S: Final = 0.01
_BYTES_A_REQUEST: Final = 200  # of a journal, about
_LONGEST_LINE: Final = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class LedgerScenario(Scenario):
    database: str = option("", "URL of an empty database; without: a new SQLite file")
    num_requests: int = option(10_000, "requests, all at once")
    num_coordinators: int = option(2, "processes that share the database")
    num_kills: int = option(10, "times that one of them is killed", least=0)
    most_tokens: int = option(200, "longest prompt, and longest answer")
    token_ms: float = option(2.0, "time that a token takes", least=0)
    most_at_once: int = option(500, "calls that the quota lets run at a time")
    share: float = option(0.6, "of the tokens of all requests, how many the quota has", least=0)
    lease_seconds: float = option(2.0, "lease of a coordinator", least=0.1)
    rate: float = option(500.0, "requests a second of the second part", least=0.1)
    seconds: float = option(20.0, "of the second part; 0: leave it out", least=0)


@dataclass
class _Accounts:
    """Ledger and journals side by side, in tokens."""

    limit: int
    computed: int = 0
    counted: int = 0
    differing: int = 0  # settled calls
    over_reserved: int = 0  # calls that computed more than they had reserved
    unknown: int = 0  # calls that computed without being in the ledger
    held: int = 0  # tokens of killed calls that count though nobody computed them
    states: dict[str, int] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)


async def run(
    options: TargetOptions, scenario: LedgerScenario, progress: Callable[[str], None]
) -> BenchResult:
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        url = scenario.database or f"sqlite:///{folder}/ledger.db"
        shown = "SQLite" if url.startswith("sqlite") else mask_url(url)
        told = replace(scenario, database=mask_url(scenario.database))
        measurement = Measurement("ledger", told, {"database": shown})
        store = Store(url)
        try:
            quota = _quota(store, scenario)
            crowd = _Crowd(scenario, url, folder, progress)
            reports = await crowd.run()
            progress("waiting for the leases of the killed")
            await _expire(store, scenario)
            found = _compare(store, folder, quota)
            rows = [_row("all at once, with kills", reports)]
            if scenario.seconds:
                progress(f"{scenario.rate:g} requests a second")
                rows.append(_row(f"{scenario.rate:g} a second", [await crowd.run_paced()]))
        finally:
            store.close()
    return measurement.finish(
        rows=rows, columns=_COLUMNS, goals=_goals(found), facts=_facts(found, crowd)
    )


def _quota(store: Store, scenario: LedgerScenario) -> int:
    """Tokens of the tenant's day: too few for all."""
    try:
        store.tenants.create("acme")
    except Exception as error:
        raise ConfigError("The database is not empty: give one that is.") from error
    mean_tokens = scenario.most_tokens * 0.75  # prompts a half of it, answers a quarter
    limit = int(scenario.num_requests * mean_tokens * scenario.share)
    store.quotas.set(
        "tenant",
        "acme",
        Quota(tokens_per_day=limit, concurrent_requests=scenario.most_at_once),
    )
    return limit


class _Crowd:
    """The coordinators, and who kills them."""

    def __init__(
        self,
        scenario: LedgerScenario,
        url: str,
        folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        self._scenario = scenario
        self._url = url
        self._folder = folder
        self._progress = progress
        self.num_killed = 0
        self.num_sent = 0

    async def run(self) -> list[LedgerJobReport]:
        num = self._scenario.num_coordinators
        kills = [self._scenario.num_kills // num] * num
        for i in range(self._scenario.num_kills % num):
            kills[i] += 1
        lives = (self._lives(place, num_kills) for place, num_kills in enumerate(kills))
        return [report for told in await asyncio.gather(*lives) for report in told]

    async def run_paced(self) -> LedgerJobReport:
        num = int(self._scenario.rate * self._scenario.seconds)
        job = self._job(tuple(range(num)), "paced.journal", rate=self._scenario.rate)
        report = await self._report(await self._start(job))
        assert report is not None, "nobody killed it"
        return report

    async def _lives(self, place: int, num_kills: int) -> list[LedgerJobReport]:
        """One coordinator: killed so many times, if it lives for so long, and started again. What
        its lives have told that were not cut short."""
        rng = random.Random(f"{self._scenario.seed} kills {place}")
        journal = f"coordinator-{place}.journal"
        told = []
        while left := self._unanswered(place, journal):
            self.num_sent += len(left)
            process = await self._start(self._job(left, journal))
            reading = asyncio.create_task(self._report(process))
            if num_kills > 0:
                num_kills -= 1
                await self._kill_within(process, journal, rng)
            report = await reading
            if report is None:
                self.num_killed += 1
                self._progress(f"{self.num_killed} killed")
            else:
                told.append(report)
        return told

    async def _kill_within(self, process: Process, journal: str, rng: random.Random) -> None:
        """Somewhere between its first deed and its last."""
        scenario = self._scenario
        most_bytes = _BYTES_A_REQUEST * scenario.num_requests // scenario.num_kills
        enough = self._size(journal) + rng.randrange(1, max(2, most_bytes))
        while process.returncode is None and self._size(journal) < enough:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)  # a file tells nobody that it grows
        if process.returncode is None:
            process.kill()

    async def _start(self, job: LedgerJob) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "novacron.bench.ledger_job",
            stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        await process.stdin.drain()
        return process

    async def _report(self, process: Process) -> LedgerJobReport | None:
        """None if it was killed before it was done."""
        assert process.stdout is not None
        line = await process.stdout.readline()
        await process.wait()
        return msgspec.json.decode(line, type=LedgerJobReport) if line else None

    def _job(self, numbers: tuple[int, ...], journal: str, rate: float = 0.0) -> LedgerJob:
        return LedgerJob(
            url=self._url,
            numbers=numbers,
            journal=str(self._folder / journal),
            seed=self._scenario.seed,
            lease_ms=int(self._scenario.lease_seconds * 1000),
            most_tokens=self._scenario.most_tokens,
            token_ms=self._scenario.token_ms,
            rate=rate,
        )

    def _unanswered(self, place: int, journal: str) -> tuple[int, ...]:
        lines = engine_journal.read(self._folder / journal)
        answered = {int(name) for what, name, _ in lines if what == "answered"}
        own = range(place, self._scenario.num_requests, self._scenario.num_coordinators)
        return tuple(number for number in own if number not in answered)

    def _size(self, journal: str) -> int:
        file = self._folder / journal
        return os.stat(file).st_size if file.exists() else 0


async def _expire(store: Store, scenario: LedgerScenario) -> None:
    """As any coordinator does while it lives."""
    book = store.book()
    await asyncio.sleep(1.1 * scenario.lease_seconds)
    while book.tend():
        pass


def _compare(store: Store, folder: Path, limit: int) -> _Accounts:
    computed: defaultdict[str, int] = defaultdict(int)
    for file in folder.glob("coordinator-*.journal"):
        for what, id, tokens in engine_journal.read(file):
            if what == "computed":
                computed[id] += tokens
    found = _Accounts(limit, computed=sum(computed.values()))
    found.disagreements = audit.differences(store.database)
    for entry in audit.entries(store.database):
        tokens = computed.pop(entry.id, 0)
        found.counted += entry.counted_tokens
        found.states[entry.state] = found.states.get(entry.state, 0) + 1
        found.differing += entry.state in (SETTLED, VOID) and tokens != entry.used_tokens
        found.over_reserved += tokens > entry.reserved_tokens
        if entry.state == EXPIRED:
            found.held += entry.reserved_tokens - tokens
    found.unknown = len(computed)
    return found


def _goals(found: _Accounts) -> list[Goal]:
    overspent = max(0, found.computed - found.limit, found.counted - found.limit)
    zeros = {
        "tokens computed or counted beyond the quota": (overspent, "tokens"),
        "settled calls whose ledger is not the engine's count": (found.differing, "calls"),
        "calls that computed more than they had reserved": (found.over_reserved, "calls"),
        "calls that computed without being in the ledger": (found.unknown, "calls"),
        "balances that are not the sum of their entries": (len(found.disagreements), ""),
    }
    return [
        Goal(name=name, limit=0, better="lower", value=value, unit=unit)
        for name, (value, unit) in zeros.items()
    ]


def _facts(found: _Accounts, crowd: _Crowd) -> dict[str, object]:
    return {
        "quota, tokens": found.limit,
        "computed by engines, tokens": found.computed,
        "counted by the ledger, tokens": found.counted,
        "of these reserved by killed calls and not computed": found.held,
        "entries by state": found.states,
        "coordinators killed": crowd.num_killed,
        "requests sent, those sent again included": crowd.num_sent,
    }


def _row(part: str, reports: Sequence[LedgerJobReport]) -> Row:
    reserve_s = [sample for report in reports for sample in report.reserve_s]
    rates = [len(report.reserve_s) / report.seconds for report in reports if report.reserve_s]
    cpu_ms = [1000 * report.cpu_s / len(report.reserve_s) for report in reports if report.reserve_s]
    return row(
        {"part": part},
        reserve=milliseconds(reserve_s or [0.0]),
        requests=metric("1/s", "higher", rates or [0.0]),
        cpu=metric("ms of processor time a request", "lower", cpu_ms or [0.0]),
    )
