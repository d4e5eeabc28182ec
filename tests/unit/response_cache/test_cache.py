from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.response_cache.answer import CachedAnswer, Recorder, decode, encode
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.identity import Key
from novacron.response_cache.memory_store import MemoryStore
from novacron.response_cache.store import Amount, StoreFailed
from novacron.testing.clock import FakeClock

KEY = Key("t", "k")


def piece(index: int, text: str, reason: FinishReason | None = None) -> RequestOutput:
    return RequestOutput(
        request_id="old", index=index, text=text, token_ids=(1,), finish_reason=reason,
        num_output_tokens=1,
    )  # fmt: skip


def request(name: str) -> Request:
    return Request(
        request_id=name, prompt_token_ids=(1,), sampling=SamplingParams(), arrival_time_s=0.0
    )


def recorder_of(num_requests: int, most: int = 1000) -> Recorder:
    requests = [request(str(number)) for number in range(num_requests)]
    return Recorder(requests, max_model_len=100, max_tokens=most)


@pytest.mark.parametrize(
    ("num_tokens", "limit", "is_whole"),
    [(5, 5, True), (4, 5, False), (99, None, True), (50, None, False), (99, 200, True)],
)
def test_an_answer_that_a_quota_has_cut_is_not_whole(
    num_tokens: int, limit: int | None, is_whole: bool
) -> None:
    """The prompt has one token, the context 100."""
    asked = msgspec.structs.replace(request("x"), sampling=SamplingParams(max_tokens=limit))
    recorder = Recorder([asked], max_model_len=100, max_tokens=1000)
    last = msgspec.structs.replace(piece(0, "x", FinishReason.LENGTH), num_output_tokens=num_tokens)
    recorder.add(last)
    assert (recorder.answer(0.0) is not None) == is_whole


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3)), max_size=60))
def test_a_replay_says_the_same_of_each_request(told: list[tuple[int, str]]) -> None:
    recorder = recorder_of(3)
    for index, text in told:
        recorder.add(piece(index, text))
    assert recorder.answer(0.0) is None
    for index in range(3):
        recorder.add(piece(index, ".", FinishReason.STOP))
    answer = recorder.answer(7.0)
    assert answer is not None
    again = decode(encode(answer))
    assert again == answer
    replayed = list(answer.replay([request(name) for name in "abc"]))
    for index, name in enumerate("abc"):
        mine = [one for one in replayed if one.index == index]
        assert {one.request_id for one in mine} == {name}
        assert "".join(one.text for one in mine) == "".join(
            [text for i, text in told if i == index] + ["."]
        )
        assert [one.finished for one in mine] == [False] * (len(mine) - 1) + [True]


@pytest.mark.parametrize("reason", [FinishReason.ABORT, FinishReason.ERROR])
def test_what_did_not_end_by_itself_is_no_answer(reason: FinishReason) -> None:
    recorder = recorder_of(2)
    recorder.add(piece(0, "x", reason))
    recorder.add(piece(1, "x", FinishReason.STOP))
    assert recorder.answer(0.0) is None


def test_what_is_too_long_is_no_answer() -> None:
    recorder = recorder_of(1, most=2)
    for _ in range(2):
        recorder.add(piece(0, "x"))
    recorder.add(piece(0, "x", FinishReason.STOP))
    assert recorder.answer(0.0) is None


def test_what_another_version_has_kept_is_a_miss() -> None:
    old = CachedAnswer(pieces=(), created_s=0.0, format=0)
    assert decode(encode(old)) is None
    assert decode(b"anything") is None


class BrokenStore:
    def __init__(self) -> None:
        self.num_asked = 0

    async def get(self, key: Key) -> bytes | None:
        self.num_asked += 1
        raise StoreFailed("gone")

    async def put(self, key: Key, data: bytes, ttl_s: float) -> None:
        self.num_asked += 1
        raise StoreFailed("gone")

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        raise StoreFailed("gone")

    async def amount(self) -> Amount:
        raise StoreFailed("gone")

    async def close(self) -> None:
        pass


async def test_a_broken_store_is_a_miss_and_left_alone_for_a_while() -> None:
    store, clock = BrokenStore(), FakeClock()
    cache = ResponseCache(store, 60.0, clock=clock, wall_clock=clock)
    for _ in range(10):
        assert await cache.find(KEY) is None
        await cache.keep(KEY, CachedAnswer(pieces=(), created_s=0.0))
    assert store.num_asked == 2
    clock.advance(2.0)
    await cache.find(KEY)
    assert store.num_asked == 3
    assert cache.counts.events["stored"] == 0
    with pytest.raises(StoreFailed):
        await cache.flush(None, dry_run=True)


async def test_a_shorter_time_counts_at_once() -> None:
    """A kept store may hold answers that were put while the setting was a longer one."""
    clock = FakeClock()
    store = MemoryStore(1 << 20, clock)
    await ResponseCache(store, 100.0, clock=clock, wall_clock=clock).keep(
        KEY, CachedAnswer(pieces=(), created_s=clock.now_s)
    )
    clock.advance(20.0)
    assert await ResponseCache(store, 100.0, clock=clock, wall_clock=clock).find(KEY)
    assert await ResponseCache(store, 10.0, clock=clock, wall_clock=clock).find(KEY) is None
