"""What is in the ledger after calls, deaths and late ends, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update

from novacron.accounts.balance import DAY_MS, HOUR_MS
from novacron.accounts.database import tables
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import KEPT_MS, LEASE_MS, LedgerBook
from novacron.accounts.database.limits import Prices, Quotas
from novacron.accounts.database.people import Tenants, Users
from novacron.accounts.database.schema import open_database
from novacron.accounts.posting import Entry, Reserve, Settle, Usage
from novacron.accounts.price import Price
from novacron.accounts.quota import Account, Quota
from novacron.accounts.wish import Wish
from novacron.errors import QuotaExceeded
from novacron.testing.clock import FakeClock

ANN = Account("acme", "ann", "k1")
WISH = Wish(prompts=(10,), answers=(20,), model="m", model_len=1000)
USED = Usage(prompt_tokens=10, cached_tokens=4, output_tokens=5)
START_MS = 20_000 * DAY_MS

MakeBook = Callable[[], LedgerBook]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START_MS)


@pytest.fixture
def make_book(database: Database, clock: FakeClock) -> MakeBook:
    Tenants(database).create("acme")
    Users(database).create("ann", tenant_id="acme")
    return lambda: LedgerBook(database, clock_ms=lambda: int(clock()))


def balance(database: Database, subject: str = "user:ann") -> tuple[int, int, int]:
    """Tokens of the day, requests of the hour, running calls."""
    table = tables.balances
    statement = select(table.c.day_tokens, table.c.hour_requests, table.c.active_requests)
    with database.reading() as connection:
        tokens, requests, active = connection.execute(
            statement.where(table.c.subject == subject)
        ).one()
        return tokens, requests, active


def usage(database: Database) -> list[tuple[int, ...]]:
    """Requests, prompt, cached, output, expired, cost; by hour."""
    table = tables.usage
    sums = (column for column in table.columns if not column.primary_key)
    with database.reading() as connection:
        rows = connection.execute(select(*sums).order_by(table.c.hour))
        return [tuple(row) for row in rows]


def reserve(book: LedgerBook, id: str) -> Entry | QuotaExceeded:
    [outcome] = book.post([Reserve(id, ANN, WISH)])
    assert isinstance(outcome, Entry | QuotaExceeded)
    return outcome


def test_a_call_takes_the_most_and_gives_back_the_rest(
    database: Database, make_book: MakeBook
) -> None:
    Prices(database).set("m", Price(prompt_micro=1_000_000, cached_micro=100_000, output_micro=2))
    book = make_book()
    entry = reserve(book, "1")
    assert isinstance(entry, Entry)
    assert balance(database) == (30, 1, 1) == balance(database, "tenant:acme")
    assert book.post([Settle("1", ANN, USED)]) == [None]
    assert balance(database) == (15, 1, 0) == balance(database, "key:k1")
    assert usage(database) == [(1, 10, 4, 5, 0, 6 * 1_000_000 + 4 * 100_000 + 5 * 2)]


def test_the_end_of_a_call_counts_once_and_that_of_an_unknown_one_never(
    database: Database, make_book: MakeBook
) -> None:
    book = make_book()
    reserve(book, "1")
    for _ in range(2):
        book.post([Settle("1", ANN, USED), Settle("unknown", ANN, USED)])
    book.post([Settle("1", ANN, None)])
    assert balance(database) == (15, 1, 0)
    assert [row[0] for row in usage(database)] == [1]


def test_a_call_that_never_ran_leaves_no_trace(database: Database, make_book: MakeBook) -> None:
    book = make_book()
    reserve(book, "1")
    book.post([Settle("1", ANN, None)])
    assert balance(database) == (0, 0, 0)
    assert usage(database) == []


def test_a_quota_holds_over_restarts_and_coordinators(
    database: Database, make_book: MakeBook
) -> None:
    Quotas(database).set("user", "ann", Quota(tokens_per_day=100))
    outcomes = [reserve(make_book(), str(i)) for i in range(4)]
    assert [type(outcome) for outcome in outcomes] == [Entry, Entry, Entry, QuotaExceeded]
    Quotas(database).set("user", "ann", Quota(tokens_per_day=120))
    assert isinstance(reserve(make_book(), "5"), Entry)
    assert balance(database)[0] == 120


def test_what_a_vanished_coordinator_left_counts_in_full(
    database: Database, make_book: MakeBook, clock: FakeClock
) -> None:
    vanished, other = make_book(), make_book()
    reserve(vanished, "1")
    clock.advance(LEASE_MS - 1)
    assert other.sweep() == 0
    clock.advance(2)
    assert other.sweep() == 1
    assert other.sweep() == 0
    assert balance(database) == (30, 1, 0)
    assert usage(database) == [(1, 0, 0, 0, 30, 0)]


def test_a_coordinator_that_turns_up_after_all_corrects_it(
    database: Database, make_book: MakeBook, clock: FakeClock
) -> None:
    paused, other = make_book(), make_book()
    reserve(paused, "1")
    reserve(paused, "2")
    clock.advance(LEASE_MS + 1)
    assert other.sweep() == 2
    paused.post([Settle("1", ANN, USED), Settle("2", ANN, None)])
    assert balance(database) == (15, 1, 0)
    assert usage(database) == [(1, 10, 4, 5, 0, 0)]


def test_a_lease_is_renewed_by_work(
    database: Database, make_book: MakeBook, clock: FakeClock
) -> None:
    busy, other = make_book(), make_book()
    reserve(busy, "1")
    for i in range(10):
        clock.advance(LEASE_MS * 0.4)
        busy.post([Settle(f"unknown {i}", ANN, None)])
        assert other.sweep() == 0


def test_a_call_over_midnight_belongs_to_the_day_it_began_in(
    database: Database, make_book: MakeBook, clock: FakeClock
) -> None:
    clock.advance(DAY_MS - 1)
    book = make_book()
    reserve(book, "late")
    clock.advance(1)
    reserve(book, "early")
    book.post([Settle("late", ANN, USED)])
    assert balance(database) == (30, 1, 1)
    hour = (START_MS + DAY_MS - 1) // HOUR_MS
    with database.reading() as connection:
        assert connection.execute(select(tables.usage.c.hour)).scalars().all() == [hour]


def test_old_entries_go_and_usage_stays(
    database: Database, make_book: MakeBook, clock: FakeClock
) -> None:
    book = make_book()
    reserve(book, "1")
    book.post([Settle("1", ANN, USED)])
    clock.advance(KEPT_MS + 1)
    alive = make_book()
    alive.renew()
    alive.sweep()
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(tables.ledger)).scalar() == 0
        assert connection.execute(select(func.count(tables.coordinators.c.id))).scalar() == 1
    assert len(usage(database)) == 1


def test_coordinators_beside_each_other_spend_a_quota_exactly(
    database: Database, database_url: str, make_book: MakeBook
) -> None:
    """Each has connections of its own, and they post as fast as they can."""
    Quotas(database).set("tenant", "acme", Quota(tokens_per_day=30 * 50))
    granted: list[str] = []

    def spend(name: str) -> None:
        own = open_database(database_url)
        book = LedgerBook(own, clock_ms=lambda: START_MS)
        for i in range(0, 40, 4):
            postings = [Reserve(f"{name} {i + j}", ANN, WISH) for j in range(4)]
            outcomes = book.post(postings)
            granted.extend(o.id for o in outcomes if isinstance(o, Entry))
        own.close()

    threads = [threading.Thread(target=spend, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == len(set(granted)) == 50
    assert balance(database, "tenant:acme") == (30 * 50, 50, 50)


def test_an_entry_is_not_lost_with_its_coordinator_s_row(
    database: Database, make_book: MakeBook
) -> None:
    book = make_book()
    reserve(book, "1")
    with database.writing() as connection:
        connection.execute(update(tables.coordinators).values(id="somebody else"))
    assert make_book().sweep() == 1
