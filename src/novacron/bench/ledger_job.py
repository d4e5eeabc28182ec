"""One coordinator of `novacron bench ledger`: a ledger, and an engine that only counts.

Its job is a line of JSON on its input. It may be killed at any moment; started again, it is given
the requests that have no answer yet, as clients send them again.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from novacron.accounts.book import BookInThread
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.ledger import Ledger
from novacron.accounts.posting import Entry, Usage
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.bench.engine_journal import EngineJournal
from novacron.errors import DatabaseUnavailable, QuotaExceeded

CROWDED: Final = "acme"  # has a day with too few tokens
QUIET: Final = "quiet"  # has enough
_GRANTED, _REFUSED = 200, 429
_PATIENCE_S = 300.0  # everything comes at once; nobody is to be refused for the queue
_CLOSE_S = 60.0
_SOON_S = 1.0  # a shorter Retry-After is not that of a day


class LedgerJob(msgspec.Struct, frozen=True, kw_only=True):
    """`rate`: requests a second; 0: all at once."""

    url: str
    numbers: tuple[int, ...]
    journal: str
    seed: int
    lease_ms: int
    most_tokens: int
    token_ms: float
    rate: float = 0.0
    tenant: str = CROWDED


class LedgerJobReport(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from asking for a reservation to having it or being refused."""

    reserve_s: tuple[float, ...]
    num_from_ahead: int
    seconds: float
    cpu_s: float


class _Coordinator:
    def __init__(self, job: LedgerJob) -> None:
        self._job = job
        database = Database(job.url)
        self._ledger = Ledger(
            BookInThread(LedgerBook(database, lease_ms=job.lease_ms)),
            patience_s=_PATIENCE_S,
            renew_every_s=job.lease_ms / 3000,
        )
        self._journal = EngineJournal(Path(job.journal))
        self._reserve_s: list[float] = []

    async def run(self) -> LedgerJobReport:
        self._ledger.start()
        started_s, cpu_s = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for i, number in enumerate(self._job.numbers):
                if self._job.rate:
                    due_s = started_s + i / self._job.rate
                    await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                group.create_task(self._request(number))
        seconds = time.perf_counter() - started_s
        cpu_s = time.process_time() - cpu_s
        await self._ledger.close(_CLOSE_S)
        return LedgerJobReport(
            reserve_s=tuple(self._reserve_s),
            num_from_ahead=self._ledger.num_from_ahead,
            seconds=seconds,
            cpu_s=cpu_s,
        )

    async def _request(self, number: int) -> None:
        """The same request whoever runs it."""
        rng = random.Random(f"{self._job.seed} {number}")
        prompt = rng.randint(1, self._job.most_tokens)
        longest = rng.choice((1, 2, 4)) * self._job.most_tokens // 4  # as clients have them: a few
        wish = Wish(prompts=(prompt,), answers=(longest,), model="m", model_len=10**6)
        tenant, user, key = self._job.tenant, number // 2 % 4, number // 2 % 8
        account = Account(tenant, f"{tenant}-user{user}", f"{tenant}-key{key}")
        try:
            entry = await self._reserve(account, wish)
        except QuotaExceeded:
            self._journal.answered(number, _REFUSED)
            return
        except DatabaseUnavailable:
            return  # no answer: the client will ask again
        answer = rng.randint(1, longest)
        self._journal.computed(entry.id, prompt)
        left = answer
        while left:
            piece = min(left, rng.randint(1, 40))
            await asyncio.sleep(piece * self._job.token_ms / 1000)
            self._journal.computed(entry.id, piece)
            left -= piece
        self._ledger.settle(entry.id, account, Usage(prompt_tokens=prompt, output_tokens=answer))
        self._journal.answered(number, _GRANTED)

    async def _reserve(self, account: Account, wish: Wish) -> Entry:
        """Where only a place is missing, try again, as clients do; but not all together."""
        while True:
            asked_s = time.perf_counter()
            try:
                return await self._ledger.reserve(account, wish)
            except QuotaExceeded as error:
                if error.retry_after_s is None or error.retry_after_s > _SOON_S:
                    raise
            finally:
                self._reserve_s.append(time.perf_counter() - asked_s)
            await asyncio.sleep(random.uniform(0.5, 3.0) * _SOON_S)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=LedgerJob)
    report = asyncio.run(_Coordinator(job).run())
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")


if __name__ == "__main__":
    main()
