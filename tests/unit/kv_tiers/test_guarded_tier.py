"""A tier that fails or hangs, and what its guard makes of it. The clock is the test's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from novacron.kv_tiers.circuit_breaker import BreakerConfig, BreakerState
from novacron.kv_tiers.guarded_tier import GuardedTier, TierResting
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash
from novacron.testing.clock import FakeClock
from novacron.testing.kv_records import RECORD_BYTES, held, key_of, make_record, put

PATIENCE_S = 30.0
BREAKER = BreakerConfig(failures=1, first_rest_s=10.0, longest_rest_s=80.0)


class MoodyTier(RamTier):
    """Does before every call what the test wants: nothing, fail, or hang."""

    def __init__(self) -> None:
        super().__init__(100 * RECORD_BYTES, RECORD_BYTES)
        self.mood: Callable[[], None] = lambda: None
        self.num_calls = 0
        self.is_closed = False

    def _feel(self) -> None:
        self.num_calls += 1
        self.mood()

    def put(self, records: Sequence[Record]) -> Put:
        self._feel()
        return super().put(records)

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        self._feel()
        return super().get(keys, into)

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        self._feel()
        return super().contains(keys)

    def count_leading(self, keys: Sequence[BlockHash]) -> int:
        self._feel()
        return next((n for n, there in enumerate(self.contains(keys)) if not there), len(keys))

    def close(self) -> None:
        self.is_closed = True
        super().close()


def fail() -> None:
    raise ConnectionError("no route")


@contextmanager
def hanging(tier: MoodyTier) -> Iterator[None]:
    go_on = threading.Event()
    tier.mood = lambda: go_on.wait(PATIENCE_S) and None
    try:
        yield
    finally:
        tier.mood = lambda: None
        go_on.set()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


@pytest.mark.parametrize("deadline_s", [None, PATIENCE_S])
def test_well_it_is_the_tier_itself(deadline_s: float | None) -> None:
    tier = MoodyTier()
    guarded = GuardedTier(tier, "test", deadline_s=deadline_s, breaker=BREAKER)
    assert put(guarded, 1, 2, 3) == []
    assert held(guarded, range(5)) == [1, 2, 3]
    assert guarded.contains([key_of(3), key_of(4)]) == [True, False]
    assert guarded.count_leading([key_of(1), key_of(2), key_of(9)]) == 2
    guarded.delete([key_of(1)])
    wait_until(lambda: held(guarded, range(5)) == [2, 3])
    assert guarded.used_bytes == 2 * RECORD_BYTES
    guarded.close()
    assert tier.is_closed


@pytest.mark.parametrize("deadline_s", [None, PATIENCE_S])
def test_after_an_error_it_is_not_asked_until_it_has_rested(deadline_s: float | None) -> None:
    tier, clock = MoodyTier(), FakeClock()
    guarded = GuardedTier(tier, "test", deadline_s=deadline_s, breaker=BREAKER, clock=clock)
    put(guarded, 1)
    tier.mood, tier.num_calls = fail, 0
    with pytest.raises(ConnectionError, match="no route"):
        held(guarded, [1])
    for _ in range(5):
        clock.advance(1.9)
        with pytest.raises(TierResting):
            held(guarded, [1])
    assert tier.num_calls == 1
    assert guarded.states == (BreakerState.OPEN, BreakerState.CLOSED), "stores are another matter"
    tier.mood = lambda: None
    put(guarded, 2)
    clock.advance(1.0)
    if deadline_s is not None:  # nobody waits for the trial
        with pytest.raises(TierResting):
            held(guarded, [1])
        wait_until(lambda: guarded.states[0] is BreakerState.CLOSED)
    assert held(guarded, [1, 2]) == [1, 2]


def test_what_hangs_costs_one_deadline_and_then_nothing() -> None:
    tier, clock = MoodyTier(), FakeClock()
    guarded = GuardedTier(tier, "test", deadline_s=0.02, breaker=BREAKER, clock=clock)
    put(tier, 1)
    with hanging(tier):
        with pytest.raises(TimeoutError, match="no answer within"):
            held(guarded, [1])
        calls = tier.num_calls
        clock.advance(11.0)
        for _ in range(3):  # time to try again, but the earlier call still hangs
            with pytest.raises(TierResting):
                held(guarded, [1])
        assert tier.num_calls == calls
    clock.advance(100.0)

    def is_well() -> bool:
        try:
            return held(guarded, [1]) == [1]
        except OSError:
            clock.advance(100.0)
            return False

    wait_until(is_well)


def test_a_store_that_hangs_holds_no_load_up() -> None:
    tier = MoodyTier()
    guarded = GuardedTier(tier, "test", deadline_s=2.0, breaker=BREAKER)
    put(tier, 1)
    with hanging(tier):
        with pytest.raises(TimeoutError):
            put(guarded, 2)
        tier.mood = lambda: None
        assert held(guarded, [1]) == [1]


def test_a_late_call_writes_to_nobodys_buffer_and_reads_nobodys_record() -> None:
    tier = MoodyTier()
    guarded = GuardedTier(tier, "test", deadline_s=0.02, breaker=BreakerConfig(failures=100))
    put(tier, 1)
    [record] = [make_record(2)]
    buffer = np.zeros(RECORD_BYTES, np.uint8)
    with hanging(tier):
        with pytest.raises(TimeoutError):
            guarded.get([key_of(1)], [buffer])
        with pytest.raises(TimeoutError):
            guarded.put([record])
        record.data[:] = 0  # the caller needs it for something else
    wait_until(lambda: tier.contains([key_of(2)]) == [True])
    assert held(tier, [1, 2]) == [1, 2], "what was put is what it was at that time"
    assert not buffer.any()


def test_a_bug_counts_like_an_error() -> None:
    tier = MoodyTier()
    guarded = GuardedTier(tier, "test", deadline_s=PATIENCE_S, breaker=BREAKER)

    def divide() -> None:
        raise ZeroDivisionError

    tier.mood = divide
    with pytest.raises(ZeroDivisionError):
        put(guarded, 1)
    with pytest.raises(TierResting):
        put(guarded, 1)


def test_a_tier_whose_call_hangs_is_not_closed_under_it() -> None:
    tier = MoodyTier()
    guarded = GuardedTier(tier, "test", deadline_s=0.02, breaker=BREAKER)
    with hanging(tier):
        with pytest.raises(TimeoutError):
            held(guarded, [1])
        guarded.close()
        assert not tier.is_closed
