from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import EventsLost, InvalidRequest, RequestNotFound
from novacron.gateway.replay import EventLog, ReplayBuffer, StreamId


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def buffer(max_bytes: int = 10**6, clock: Clock | None = None) -> ReplayBuffer:
    return ReplayBuffer(max_bytes, keep_s=60.0, clock=clock or Clock())


async def read_all(log: EventLog, start: int = 0) -> list[bytes]:
    return [event.data async for event in log.read(start)]


async def test_late_and_early_readers_get_the_same_events() -> None:
    replay = buffer()
    log = replay.open(StreamId("a"))
    early = asyncio.create_task(read_all(log))
    for data in (b"0", b"1", b"2"):
        replay.append(StreamId("a"), data)
        await asyncio.sleep(0)
    late = asyncio.create_task(read_all(log))
    resumed = asyncio.create_task(read_all(log, 2))
    await asyncio.sleep(0)
    replay.append(StreamId("a"), b"3")
    replay.close(StreamId("a"))
    assert await early == await late == [b"0", b"1", b"2", b"3"]
    assert await resumed == [b"2", b"3"]
    assert await read_all(replay.get(StreamId("a")), 99) == []


async def test_a_reader_that_lags_behind_the_buffer_is_told() -> None:
    replay = buffer(max_bytes=1000)
    log = replay.open(StreamId("a"))
    reader = log.read()
    replay.append(StreamId("a"), b"x" * 200)
    assert (await anext(reader)).number == 0
    for _ in range(10):
        replay.append(StreamId("a"), b"x" * 200)
    with pytest.raises(EventsLost) as lost:
        await anext(reader)
    assert lost.value.first_kept == log.first_kept > 1
    assert (await anext(log.read(log.first_kept))).number == log.first_kept


async def test_finished_streams_make_room_first_the_oldest_before_others() -> None:
    replay = buffer(max_bytes=2000)
    for name in ("old", "new", "live"):
        replay.open(StreamId(name))
        replay.append(StreamId(name), b"x" * 400)
    replay.close(StreamId("old"))
    replay.close(StreamId("new"))
    replay.append(StreamId("live"), b"x" * 400)
    assert replay.find(StreamId("old")) is None
    assert replay.find(StreamId("new")) is not None
    assert replay.get(StreamId("live")).first_kept == 0


async def test_a_finished_stream_that_made_room_is_lost_to_its_slow_readers() -> None:
    replay = buffer(max_bytes=1000)
    slow = replay.open(StreamId("old")).read()
    for _ in range(2):
        replay.append(StreamId("old"), b"x" * 200)
    assert (await anext(slow)).number == 0
    replay.close(StreamId("old"))
    replay.open(StreamId("new"))
    replay.append(StreamId("new"), b"x" * 400)
    with pytest.raises(EventsLost):
        await anext(slow)


async def test_an_expired_stream_is_read_to_its_end_by_who_is_at_it() -> None:
    clock = Clock()
    replay = buffer(clock=clock)
    slow = replay.open(StreamId("a")).read()
    for data in (b"0", b"1"):
        replay.append(StreamId("a"), data)
    await anext(slow)
    replay.close(StreamId("a"))
    clock.now_s = 100.0
    assert replay.find(StreamId("a")) is None
    assert [event.data async for event in slow] == [b"1"]


async def test_streams_expire_and_their_ids_become_free() -> None:
    clock = Clock()
    replay = buffer(clock=clock)
    replay.open(StreamId("a"))
    with pytest.raises(InvalidRequest, match="in use"):
        replay.open(StreamId("a"))
    replay.close(StreamId("a"))
    clock.now_s = 59.0
    assert replay.get(StreamId("a")).closed
    clock.now_s = 61.0
    with pytest.raises(RequestNotFound):
        replay.get(StreamId("a"))
    replay.open(StreamId("a"))
    assert replay.num_bytes == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("oacf"), st.integers(0, 400)),
        max_size=60,
    )
)
def test_the_buffer_never_outgrows_its_limit_nor_loses_count(
    steps: list[tuple[str, str, int]],
) -> None:
    replay = buffer(max_bytes=1500)
    logs: dict[str, EventLog] = {}
    for name, action, size in steps:
        known = replay.find(StreamId(name))
        if action == "o" and known is None:
            logs[name] = replay.open(StreamId(name))
        elif known is None:
            continue
        elif action == "a" and not known.closed:
            replay.append(StreamId(name), b"x" * size)
        elif action == "c" and not known.closed:
            replay.close(StreamId(name))
        elif action == "f":
            replay.forget(StreamId(name))
        kept = [log for key in "abcd" if (log := replay.find(StreamId(key))) is not None]
        assert replay.num_bytes == sum(log.num_bytes for log in kept) <= 1500
