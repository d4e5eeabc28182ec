"""Leases and members in a database, of both kinds. Time passes by moving what is written back."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, update

from novacron.accounts.database import lease_rows, tables
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.schema import open_database
from novacron.accounts.database.shared_state import DatabaseState
from novacron.coordination.lease import Fence, Lease, LeaseLost
from novacron.coordination.member import Member

TTL_MS = 60_000
A, B = Member(id="a", address="http://a"), Member(id="b")
DUTIES = ("ledger", "streams")


@pytest.fixture
def state(database: Database) -> DatabaseState:
    return DatabaseState(database)


def let_time_pass(database: Database) -> None:
    """Everything that has been granted runs out."""
    with database.writing() as connection:
        connection.execute(update(tables.leases).values(expires_ms=1))
        connection.execute(update(tables.members).values(alive_until_ms=1))


def holders(leases: tuple[Lease, ...]) -> dict[str, tuple[str, int]]:
    return {lease.duty: (lease.holder, lease.epoch) for lease in leases}


def test_the_first_gets_all_duties_and_keeps_them(state: DatabaseState) -> None:
    state.beat(A, DUTIES, TTL_MS)
    picture = state.beat(B, DUTIES, TTL_MS)
    again = state.beat(A, DUTIES, TTL_MS)
    assert holders(picture.leases) == dict.fromkeys(DUTIES, ("a", 1)) == holders(again.leases)
    assert again.leases[0].expires_ms >= picture.leases[0].expires_ms
    assert picture.is_alive("a")
    assert picture.is_alive("b")
    assert picture.members["a"].address == "http://a"
    assert picture.members["a"].started_at_ms > 0


def test_who_is_silent_loses_them_and_what_he_does_late_is_refused(
    database: Database, state: DatabaseState
) -> None:
    state.beat(A, DUTIES, TTL_MS)
    old = Fence("ledger", "a", 1)
    assert LedgerBook(database).sweep(old) == 0
    let_time_pass(database)
    picture = state.beat(B, DUTIES, TTL_MS)
    assert holders(picture.leases) == dict.fromkeys(DUTIES, ("b", 2))
    assert not picture.is_alive("a")
    with pytest.raises(LeaseLost):
        LedgerBook(database).sweep(old)
    for duty in (state.orphans, lambda fence: state.forget(fence, 0)):
        with pytest.raises(LeaseLost):
            duty(old)
    assert LedgerBook(database).sweep(Fence("ledger", "b", 2)) == 0


def test_what_was_begun_before_a_lease_was_lost_is_not_written_after_it(
    database: Database, database_url: str, state: DatabaseState
) -> None:
    """The successor waits for the end of a transaction that has passed its fence."""
    state.beat(A, ("ledger",), TTL_MS)
    let_time_pass(database)
    other = open_database(database_url)
    order = []

    def take_over() -> None:
        DatabaseState(other).beat(B, ("ledger",), TTL_MS)
        order.append("taken")

    thread = threading.Thread(target=take_over)
    with database.writing() as connection:
        lease_rows.check(connection, Fence("ledger", "a", 1))
        thread.start()
        thread.join(0.05)
        order.append("written")
    thread.join()
    other.close()
    assert order == ["written", "taken"]


def test_many_at_once_agree_on_one(database_url: str, state: DatabaseState) -> None:
    barrier = threading.Barrier(4)

    def join(name: str) -> None:
        own = open_database(database_url)
        barrier.wait()
        DatabaseState(own).beat(Member(id=name), DUTIES, TTL_MS)
        own.close()

    threads = [threading.Thread(target=join, args=(name,)) for name in "wxyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leases = state.beat(A, (), TTL_MS).leases
    assert len(leases) == 2
    assert all(lease.epoch == 1 and lease.holder in "wxyz" for lease in leases)


def test_who_leaves_is_gone_with_his_duties(database: Database, state: DatabaseState) -> None:
    state.beat(A, DUTIES, TTL_MS)
    state.leave("a")
    picture = state.beat(B, DUTIES, TTL_MS)
    assert list(picture.members) == ["b"]
    assert holders(picture.leases) == dict.fromkeys(DUTIES, ("b", 2))


def test_those_that_ended_long_ago_are_forgotten(database: Database, state: DatabaseState) -> None:
    state.beat(A, ("streams",), TTL_MS)
    let_time_pass(database)
    state.beat(B, ("streams",), TTL_MS)
    state.forget(Fence("streams", "b", 2), 0)
    with database.reading() as connection:
        assert connection.execute(select(tables.members.c.id)).scalars().all() == ["b"]
