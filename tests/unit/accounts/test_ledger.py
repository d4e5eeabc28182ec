"""Batches, failures and ends, over a book that a test controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from novacron.accounts.book import BookInThread
from novacron.accounts.ledger import Ledger
from novacron.accounts.posting import Entry, Outcome, Posting, Reserve, Settle, Usage
from novacron.accounts.quota import NO_QUOTA, Account
from novacron.accounts.wish import Wish
from novacron.errors import DatabaseUnavailable, QuotaExceeded
from novacron.testing.waiting import until

ACME = Account("acme")
WISH = Wish(prompts=(1,), answers=(2,), model="m", model_len=10)


class FakeBook:
    """Grants everything, notes it, and fails or waits when told to."""

    def __init__(self) -> None:
        self.posted: list[Posting] = []
        self.num_asked = 0
        self.num_batches = 0
        self.fails = False
        self.fails_after_posting = False
        self.outcome: Outcome = None
        self.grants_ahead = False
        self.num_places: int | None = None  # so many calls are let in at a time
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.num_renewed = 0
        self.fails_to_renew_after_posting = False
        self.has_failed_to_renew = False

    def post(self, postings: Sequence[Posting]) -> list[Outcome]:
        self.num_asked += 1
        self.may_go_on.wait()
        self.num_batches += 1
        if self.fails:
            raise DatabaseUnavailable("gone")
        outcomes = [self._outcome(one) for one in postings]
        if self.fails_after_posting:
            self.fails_after_posting = False
            raise DatabaseUnavailable("gone in the middle of a commit")
        return outcomes

    def _outcome(self, one: Posting) -> Outcome:
        if isinstance(one, Reserve):
            has_place = self.num_places is None or len(self.open_ids()) < self.num_places
            if not has_place or (one.is_ahead and not self.grants_ahead):
                return QuotaExceeded("no room", 1.0, subject="tenant:acme")
        self.posted.append(one)
        if isinstance(one, Settle):
            return None
        limits = (("tenant:acme", NO_QUOTA),) if one.is_ahead else ()
        return self.outcome or Entry(one.id, 300, (2,), 0, 0, {}, None, limits)

    def renew(self) -> None:
        self.num_renewed += 1
        if self.fails_to_renew_after_posting and self.posted:
            self.fails_to_renew_after_posting = False
            self.has_failed_to_renew = True
            raise DatabaseUnavailable("gone")

    def open_ids(self) -> set[str]:
        ended = {one.id for one in self.posted if isinstance(one, Settle)}
        return {one.id for one in self.posted if isinstance(one, Reserve)} - ended


@pytest.fixture
def book() -> FakeBook:
    return FakeBook()


@pytest.fixture
async def ledger(book: FakeBook) -> AsyncIterator[Ledger]:
    ledger = Ledger(BookInThread(book), kept_ahead_s=3600.0)
    ledger.start()
    yield ledger
    book.may_go_on.set()
    book.fails = False
    assert await ledger.close(10.0)


async def test_calls_beside_each_other_share_a_transaction(book: FakeBook, ledger: Ledger) -> None:
    book.may_go_on.clear()
    calls = [asyncio.create_task(ledger.reserve(ACME, WISH)) for _ in range(50)]
    await asyncio.sleep(0)
    book.may_go_on.set()
    entries = await asyncio.gather(*calls)
    assert len({entry.id for entry in entries}) == 50
    assert book.num_batches <= 3


async def test_a_refusal_is_raised(book: FakeBook, ledger: Ledger) -> None:
    book.outcome = QuotaExceeded("no", 7.0)
    with pytest.raises(QuotaExceeded, match="no"):
        await ledger.reserve(ACME, WISH)


async def test_without_the_database_nothing_is_let_in(book: FakeBook, ledger: Ledger) -> None:
    book.fails = True
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await ledger.reserve(ACME, WISH)
    book.fails = False
    for _ in range(100):
        try:
            await ledger.reserve(ACME, WISH)
            break
        except DatabaseUnavailable:
            await asyncio.sleep(0.05)
    await until(lambda: len(book.open_ids()) == 1)


async def test_ends_of_calls_wait_for_the_database(book: FakeBook, ledger: Ledger) -> None:
    entry = await ledger.reserve(ACME, WISH)
    book.fails = True
    ledger.settle(entry.id, ACME, Usage(prompt_tokens=1))
    await until(lambda: book.num_batches >= 2)
    assert book.open_ids() == {entry.id}
    book.fails = False
    await until(lambda: not book.open_ids())


async def test_a_reservation_of_unknown_fate_is_refused_and_ended(
    book: FakeBook, ledger: Ledger
) -> None:
    book.fails_after_posting = True
    with pytest.raises(DatabaseUnavailable):
        await ledger.reserve(ACME, WISH)
    await until(lambda: len(book.posted) == 2)
    [begun, ended] = book.posted
    assert ended == Settle(begun.id, ACME, None)


async def test_who_leaves_while_he_waits_holds_nothing(book: FakeBook, ledger: Ledger) -> None:
    book.may_go_on.clear()
    first = asyncio.create_task(ledger.reserve(ACME, WISH))
    await until(lambda: book.num_asked)  # the thread has it
    second = asyncio.create_task(ledger.reserve(ACME, WISH))
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    book.may_go_on.set()
    await until(lambda: bool(book.posted) and not book.open_ids())
    assert sum(isinstance(one, Reserve) for one in book.posted) == 1


async def test_a_database_that_hangs_is_not_waited_for(book: FakeBook) -> None:
    ledger = Ledger(BookInThread(book), patience_s=0.01)
    ledger.start()
    book.may_go_on.clear()
    with pytest.raises(DatabaseUnavailable, match="in time"):
        await ledger.reserve(ACME, WISH)
    book.may_go_on.set()
    assert await ledger.close(10.0)
    assert not book.open_ids()


async def test_while_the_machine_was_stopped_no_patience_is_lost(book: FakeBook) -> None:
    loop = asyncio.get_running_loop()
    ledger = Ledger(BookInThread(book), patience_s=60.0)
    ledger.start()
    book.may_go_on.clear()
    call = asyncio.create_task(ledger.reserve(ACME, WISH))
    await until(lambda: book.num_asked)
    real_time = loop.time
    loop.time = lambda: real_time() + 3600.0  # type: ignore[method-assign]
    await asyncio.sleep(0.001)  # whatever was due within the hour has had its turn
    book.may_go_on.set()
    assert await call
    assert await ledger.close(10.0)


async def test_a_bug_lets_nothing_in_either(book: FakeBook, ledger: Ledger) -> None:
    book.outcome = Entry("x", 1, (1,), 0, 0, {})

    def broken(postings: Sequence[Posting]) -> list[Outcome]:
        raise ZeroDivisionError

    post, book.post = book.post, broken  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await ledger.reserve(ACME, WISH)
    book.post = post  # type: ignore[method-assign]


async def test_a_failure_to_renew_takes_nothing_back(book: FakeBook) -> None:
    """What was posted just before stays as it is."""
    ledger = Ledger(BookInThread(book), renew_every_s=0.0)
    ledger.start()
    book.fails_to_renew_after_posting = True
    entry = await ledger.reserve(ACME, WISH)
    await until(lambda: book.has_failed_to_renew)
    assert await ledger.close(10.0)
    assert book.open_ids() == {entry.id}


async def test_closing_posts_what_waits(book: FakeBook) -> None:
    ledger = Ledger(BookInThread(book))
    ledger.start()
    entry = await ledger.reserve(ACME, WISH)
    ledger.settle(entry.id, ACME, None)
    assert await ledger.close(10.0)
    assert not book.open_ids()
    assert book.num_renewed >= 1


async def test_closing_does_not_wait_for_a_database_that_is_gone(book: FakeBook) -> None:
    ledger = Ledger(BookInThread(book))
    ledger.start()
    entry = await ledger.reserve(ACME, WISH)
    book.may_go_on.clear()
    ledger.settle(entry.id, ACME, None)
    assert not await ledger.close(0.01)
    book.may_go_on.set()


async def test_a_busy_caller_waits_for_no_batch(book: FakeBook, ledger: Ledger) -> None:
    book.grants_ahead = True
    entries = [await ledger.reserve(ACME, WISH) for _ in range(2)]
    await until(lambda: len(book.open_ids()) > 2)
    await asyncio.sleep(0)  # and the ledger has heard of it
    book.may_go_on.clear()
    entries.append(await ledger.reserve(ACME, WISH))  # hangs, if it has to be posted
    assert len({entry.id for entry in entries}) == 3
    assert entries[-1].answers == (2,)
    assert entries[-1].id in book.open_ids()


async def test_what_is_reserved_ahead_keeps_no_call_out(book: FakeBook, ledger: Ledger) -> None:
    book.grants_ahead = True
    book.num_places = 6
    ann, bob = Account("acme", "ann"), Account("acme", "bob")
    for _ in range(2):
        await ledger.reserve(ann, WISH)
    await until(lambda: len(book.open_ids()) > 2)
    for _ in range(4):
        await ledger.reserve(bob, WISH)
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(bob, WISH)


async def test_closing_gives_back_what_was_reserved_ahead(book: FakeBook) -> None:
    book.grants_ahead = True
    ledger = Ledger(BookInThread(book))
    ledger.start()
    for _ in range(2):
        entry = await ledger.reserve(ACME, WISH)
        ledger.settle(entry.id, ACME, None)
    await until(lambda: any(isinstance(one, Reserve) and one.is_ahead for one in book.posted))
    assert await ledger.close(10.0)
    assert not book.open_ids()
