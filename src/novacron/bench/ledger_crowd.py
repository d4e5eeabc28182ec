"""The coordinators of `novacron bench ledger`, and who kills them and starts them again."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from novacron.bench import engine_journal
from novacron.bench.ledger_job import CROWDED, QUIET, LedgerJob, LedgerJobReport
from novacron.bench.scenario import Scenario, option

_POLL_S: Final = 0.01
_BYTES_A_REQUEST: Final = 200  # of a journal, about
_LONGEST_LINE: Final = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class LedgerScenario(Scenario):
    database: str = option("", "URL of an empty database; without: a new SQLite file")
    num_requests: int = option(10_000, "requests, all at once")
    arrivals: float = option(
        0.0, "requests a second of each coordinator in the first part; 0: all at once", least=0
    )
    num_coordinators: int = option(2, "processes that share the database")
    num_kills: int = option(10, "times that one of them is killed", least=0)
    most_tokens: int = option(200, "longest prompt, and longest answer")
    token_ms: float = option(2.0, "time that a token takes", least=0)
    most_at_once: int = option(500, "calls that the quota lets run at a time")
    share: float = option(0.6, "of the tokens of all requests, how many the quota has", least=0)
    lease_seconds: float = option(2.0, "lease of a coordinator", least=0.1)
    rate: float = option(500.0, "requests a second of the second part", least=0.1)
    seconds: float = option(20.0, "of the second part; 0: leave it out", least=0)


class Crowd:
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
        job = self._job(tuple(range(num)), "paced.journal", self._scenario.rate, QUIET)
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
            process = await self._start(self._job(left, journal, self._scenario.arrivals))
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

    def _job(
        self, numbers: tuple[int, ...], journal: str, rate: float, tenant: str = CROWDED
    ) -> LedgerJob:
        return LedgerJob(
            url=self._url,
            numbers=numbers,
            journal=str(self._folder / journal),
            seed=self._scenario.seed,
            lease_ms=int(self._scenario.lease_seconds * 1000),
            most_tokens=self._scenario.most_tokens,
            token_ms=self._scenario.token_ms,
            rate=rate,
            tenant=tenant,
        )

    def _unanswered(self, place: int, journal: str) -> tuple[int, ...]:
        lines = engine_journal.read(self._folder / journal)
        answered = {int(name) for what, name, _ in lines if what == "answered"}
        own = range(place, self._scenario.num_requests, self._scenario.num_coordinators)
        return tuple(number for number in own if number not in answered)

    def _size(self, journal: str) -> int:
        file = self._folder / journal
        return os.stat(file).st_size if file.exists() else 0
