"""Streams on record, on both databases: who may write, who goes on, and who pays."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from novacron.accounts.database import audit, tables
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.shared_state import DatabaseState
from novacron.accounts.posting import Entry, Reserve, Settle, Usage
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.coordination.lease import Fence
from novacron.coordination.member import Member
from novacron.coordination.streams import Chunk, Claim, StreamEnd, StreamStart, StreamState
from novacron.errors import InvalidRequest

ACME = Account("acme")
WISH = Wish(prompts=(10,), answers=(20,), model="m", model_len=1000)


def start(key: str = "s/acme", *, is_background: bool = False) -> StreamStart:
    return StreamStart(key=key, is_background=is_background, model="m", prompt=b"p", request=b"r")


@pytest.fixture
def state(database: Database) -> DatabaseState:
    return DatabaseState(database)


@pytest.fixture
def book(database: Database) -> LedgerBook:
    return LedgerBook(database, coordinator="a")


def begin(book: LedgerBook, id: str = "1", stream: StreamStart | None = None) -> object:
    [outcome] = book.post([Reserve(id, ACME, WISH, stream or start())])
    return outcome


def test_a_stream_is_on_record_with_its_reservation(book: LedgerBook, state: DatabaseState) -> None:
    assert state.find("s/acme") is None
    assert isinstance(begin(book), Entry)
    row = state.find("s/acme")
    assert row is not None
    assert (row.owner, row.epoch, row.state) == ("a", 1, StreamState.RUNNING)


def test_a_key_in_use_is_refused_and_costs_nothing(database: Database, book: LedgerBook) -> None:
    outcomes = book.post([Reserve(str(i), ACME, WISH, start()) for i in range(2)])
    assert isinstance(outcomes[0], Entry)
    other = LedgerBook(database, coordinator="b")
    for refused in (outcomes[1], begin(other, "3")):
        assert isinstance(refused, InvalidRequest)
        assert refused.param == "request_id"
    assert [entry.id for entry in audit.entries(database)] == ["0"]


def test_who_claims_gets_all_that_was_written_and_nobody_else_writes_any_more(
    book: LedgerBook, state: DatabaseState
) -> None:
    begin(book)
    key = "s/acme"
    assert state.append("a", [Chunk(key, 1, 0, b"x"), Chunk(key, 1, 1, b"y")], []) == set()
    assert state.append("a", [Chunk(key, 1, 1, b"y")], []) == set()  # after a commit in doubt
    taken = state.claim(key, Claim("b", "a", 1))
    assert taken is not None
    assert (taken.chunks, taken.epoch, taken.start) == ((b"x", b"y"), 2, start())
    assert state.claim(key, Claim("c", "a", 1)) is None
    late = [Chunk(key, 1, 2, b"late")]
    assert state.append("a", late, [StreamEnd(key, 1, StreamState.ENDED)]) == {key}
    assert state.append("b", [Chunk(key, 2, 2, b"z")], []) == set()
    again = state.claim(key, Claim("a", "b", 2))
    assert again is not None
    assert again.chunks == (b"x", b"y", b"z")
    assert state.append("a", late, []) == {key}  # ours, but of an earlier epoch


def test_the_reservation_goes_with_the_stream(
    database: Database, book: LedgerBook, state: DatabaseState
) -> None:
    begin(book)
    state.claim("s/acme", Claim("b", "a", 1))
    book.post([Settle("1", ACME, Usage(prompt_tokens=10, output_tokens=1))])
    [entry] = audit.entries(database)
    assert entry.state == "open"
    LedgerBook(database, coordinator="b").post(
        [Settle("1", ACME, Usage(prompt_tokens=10, output_tokens=5))]
    )
    [entry] = audit.entries(database)
    assert (entry.state, entry.counted_tokens) == ("settled", 15)
    assert audit.differences(database) == []


def test_ends(book: LedgerBook, state: DatabaseState) -> None:
    for number, key in enumerate(("ended/", "left/", "released/")):
        begin(book, str(number), start(key))
    ends = [
        StreamEnd("ended/", 1, StreamState.FAILED, "why"),
        StreamEnd("left/", 1, None),
        StreamEnd("released/", 1, None, is_released=True),
    ]
    assert state.append("a", [Chunk("left/", 1, 0, b"x")], ends) == set()
    assert state.find("left/") is None
    released = state.find("released/")
    assert released is not None
    assert released.owner == ""
    taken = state.claim("ended/", Claim("b", "a", 1))
    assert taken is not None
    assert (taken.state, taken.error) == (StreamState.FAILED, "why")


def test_orphans_are_what_runs_in_the_background_of_who_has_ended(
    book: LedgerBook, state: DatabaseState
) -> None:
    begin(book, "1", start("asked/"))
    begin(book, "2", start("alone/", is_background=True))
    state.beat(Member(id="a"), (), 60_000)
    state.beat(Member(id="b"), ("orphans",), 60_000)
    fence = Fence("orphans", "b", 1)
    assert state.orphans(fence) == []
    state.leave("a")
    assert state.orphans(fence) == ["alone/"]


def test_old_streams_go_unless_somebody_tells_them(
    database: Database, book: LedgerBook, state: DatabaseState
) -> None:
    state.beat(Member(id="a"), ("streams",), 60_000)
    fence = Fence("streams", "a", 1)
    for number, key in enumerate(("running/", "ended/", "new/")):
        begin(book, str(number), start(key))
    state.append("a", [Chunk("ended/", 1, 0, b"x")], [StreamEnd("ended/", 1, StreamState.ENDED)])
    with database.writing() as connection:
        old = update(tables.streams).where(tables.streams.c.key != "new/")
        connection.execute(old.values(touched_at_ms=1))
    assert state.forget(fence, 60_000) == 1
    assert [state.find(key) is None for key in ("running/", "ended/", "new/")] == [
        False,
        True,
        False,
    ]
    state.beat(Member(id="a"), ("streams",), 60_000)
    with database.writing() as connection:
        connection.execute(update(tables.members).values(alive_until_ms=1))
    assert state.forget(fence, 60_000) == 1
    assert [state.find(key) is None for key in ("running/", "new/")] == [True, False]
