"""A guarded tier that lends the buffers that records came into."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.lending_guard import LendingGuard
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.tier import Bytes, LendsBlocks
from novacron.records.block import BlockHash
from novacron.testing.kv_records import RECORD_BYTES, block_content, key_of, make_record, put

PATIENCE_S = 30.0


class SlowTier(RamTier):
    """Reads once it may."""

    def __init__(self) -> None:
        super().__init__(100 * RECORD_BYTES, RECORD_BYTES)
        self.may_read = threading.Event()
        self.may_read.set()
        self.has_read = threading.Event()

    def get(self, keys: object, into: object) -> list[bool]:
        self.may_read.wait(PATIENCE_S)
        found = super().get(keys, into)  # type: ignore[arg-type]
        self.has_read.set()
        return found


def guard(tier: RamTier, deadline_s: float = PATIENCE_S, num_ready: int = 0) -> LendingGuard:
    return LendingGuard(
        tier,
        "test",
        record_bytes=RECORD_BYTES,
        num_ready=num_ready,
        deadline_s=deadline_s,
        breaker=BreakerConfig(failures=100),
    )


def keys(*numbers: int) -> list[BlockHash]:
    return [key_of(number) for number in numbers]


def empty_headers(count: int) -> Bytes:
    return np.zeros((count, HEADER_BYTES), np.uint8)


def test_what_is_there_is_lent_with_its_header() -> None:
    tier = SlowTier()
    put(tier, 1, 2)
    guarded, headers = guard(tier, num_ready=2), empty_headers(3)
    assert isinstance(guarded, LendsBlocks)
    loan = guarded.lend(keys(1, 9, 2), headers)
    first, none, second = loan.blocks
    assert none is None
    assert first is not None
    assert second is not None
    assert (first == block_content(1)).all()
    assert (second == block_content(2)).all()
    assert headers[0].tobytes() == make_record(1).data[:HEADER_BYTES].tobytes()
    assert not headers[1].any()
    assert loan.is_intact() == [True, False, True]
    guarded.close()


def test_buffers_are_lent_to_one_at_a_time_and_used_again() -> None:
    tier = SlowTier()
    put(tier, *range(8))
    guarded = guard(tier, num_ready=4)
    loans = [guarded.lend(keys(2 * n, 2 * n + 1), empty_headers(2)) for n in range(4)]
    for turn, loan in enumerate(loans):
        for place, block in enumerate(loan.blocks):
            assert block is not None
            assert (block == block_content(2 * turn + place)).all()
    before = {block.ctypes.data for loan in loans for block in loan.blocks if block is not None}
    for loan in loans:
        loan.is_intact()
    after = guarded.lend(keys(*range(8)), empty_headers(8)).blocks
    assert {block.ctypes.data for block in after if block is not None} == before
    guarded.close()


def test_a_late_call_writes_to_nothing_that_is_lent_later() -> None:
    tier = SlowTier()
    put(tier, 1, 2)
    guarded = guard(tier, deadline_s=0.02)
    tier.may_read.clear()
    tier.has_read.clear()
    with pytest.raises(TimeoutError):
        guarded.lend(keys(1), empty_headers(1))
    buffers = guarded.take_scratch(4, RECORD_BYTES)
    for buffer in buffers:
        buffer[:] = 7
    tier.may_read.set()
    assert tier.has_read.wait(PATIENCE_S)
    assert all((buffer == 7).all() for buffer in buffers)
    guarded.close()
