"""The journal of streams, over rows that a test controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from novacron.coordination.lease import Fence
from novacron.coordination.member import Member, Picture
from novacron.coordination.stream_journal import OpenStream, StreamJournal
from novacron.coordination.streams import (
    Chunk,
    Claim,
    StreamEnd,
    StreamRow,
    StreamState,
    TakenStream,
    may_claim,
)
from novacron.coordination.told import decode
from novacron.errors import DatabaseUnavailable
from novacron.records.output import RequestOutput
from novacron.records.request import Request, SamplingParams
from novacron.testing.waiting import until

NEVER_S = 3600.0
REQUEST = Request(
    request_id="r", prompt_token_ids=(1, 2), sampling=SamplingParams(), arrival_time_s=0.0
)


class FakeRows:
    def __init__(self) -> None:
        self.appended: list[tuple[list[Chunk], list[StreamEnd]]] = []
        self.is_gone = False
        self.num_failures = 0
        self.lost: set[str] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def append(self, owner: str, chunks: Sequence[Chunk], ends: Sequence[StreamEnd]) -> set[str]:
        self.may_go_on.wait()
        if self.is_gone:
            self.num_failures += 1
            raise DatabaseUnavailable("gone")
        self.appended.append((list(chunks), list(ends)))
        return self.lost

    def texts(self, key: str) -> list[str]:
        chunks = [c for batch, _ in self.appended for c in batch if c.key == key]
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
        return ["".join(o.text for o in decode([c.data], [REQUEST])) for c in chunks]

    def find(self, key: str) -> StreamRow | None:
        raise NotImplementedError

    def claim(self, key: str, claim: Claim) -> TakenStream | None:
        raise NotImplementedError

    def orphans(self, fence: Fence) -> list[str]:
        raise NotImplementedError

    def forget(self, fence: Fence, keep_ms: int) -> int:
        raise NotImplementedError


@pytest.fixture
def rows() -> FakeRows:
    return FakeRows()


@pytest.fixture
async def journal(rows: FakeRows) -> AsyncIterator[StreamJournal]:
    journal = StreamJournal(rows, "me", flush_every_s=NEVER_S, patience_s=NEVER_S)
    journal.start()
    yield journal
    rows.may_go_on.set()
    await journal.close(10.0)


def output(text: str) -> RequestOutput:
    return RequestOutput(request_id="r", text=text, token_ids=(1,), num_output_tokens=1)


def stream(key: str = "s", lost: list[str] | None = None) -> OpenStream:
    noted = [] if lost is None else lost
    return OpenStream(key, 1, 0, lambda: noted.append(key))


async def test_what_can_wait_goes_with_what_cannot(rows: FakeRows, journal: StreamJournal) -> None:
    one, other = stream("one"), stream("other")
    for text in "abc":
        journal.note(one, output(text))
    assert one.num_unwritten == 3
    journal.note(other, output("x"))
    await journal.written(other)
    assert len(rows.appended) == 1
    assert (rows.texts("one"), rows.texts("other")) == (["abc"], ["x"])
    assert one.num_unwritten == other.num_unwritten == 0


async def test_what_a_failure_left_is_written_once_and_in_order(
    rows: FakeRows, journal: StreamJournal
) -> None:
    rows.is_gone = True
    one = stream()
    journal.note(one, output("a"))
    first = asyncio.create_task(journal.written(one))
    await until(lambda: rows.num_failures)
    journal.note(one, output("b"))
    rows.is_gone = False
    await journal.written(one)
    await first
    assert rows.texts("s") == ["a", "b"]


async def test_a_record_is_given_up_when_the_database_is_long_away(rows: FakeRows) -> None:
    journal = StreamJournal(rows, "me", flush_every_s=NEVER_S, patience_s=0.01)
    journal.start()
    rows.may_go_on.clear()
    one = stream()
    journal.note(one, output("a"))
    await journal.written(one)
    assert one.is_given_up
    journal.note(one, output("b"))
    await journal.written(one)  # returns at once
    rows.may_go_on.set()
    await journal.close(10.0)
    assert rows.texts("s") == ["a"]
    [end] = [end for _, ends in rows.appended for end in ends]
    assert (end.state, end.is_released) == (None, False)


async def test_a_stream_that_has_changed_hands_is_told(
    rows: FakeRows, journal: StreamJournal
) -> None:
    lost: list[str] = []
    one = stream(lost=lost)
    rows.lost = {"s"}
    journal.note(one, output("a"))
    await journal.written(one)
    assert lost == ["s"]
    assert one.is_given_up


async def test_the_end_is_written_with_what_came_before_it(
    rows: FakeRows, journal: StreamJournal
) -> None:
    one = stream()
    journal.note(one, output("a"))
    journal.end(one, StreamState.FAILED, error="why")
    await journal.close(10.0)
    assert rows.texts("s") == ["a"]
    [end] = [end for _, ends in rows.appended for end in ends]
    assert (end.state, end.error) == (StreamState.FAILED, "why")


def test_a_stream_is_claimed_from_who_has_ended_or_given_it_up_or_does_not_answer() -> None:
    alive = Picture(now_ms=5, members={"a": Member(id="a", alive_until_ms=6)})

    def claimable(owner: str, picture: Picture = alive, **more: bool) -> bool:
        row = StreamRow(key="k", owner=owner, epoch=1, state=StreamState.RUNNING, model="m")
        return may_claim(row, "me", picture, was_unreachable=more.get("unreachable", False))

    assert not claimable("a")
    assert claimable("a", Picture(now_ms=6, members=alive.members))
    assert claimable("a", unreachable=True)
    assert claimable("")
    assert claimable("unknown")
    assert not claimable("me", unreachable=True)
