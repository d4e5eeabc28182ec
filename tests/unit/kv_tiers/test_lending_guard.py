"""A guarded tier that lends the buffers that records came into."""

from __future__ import annotations

import threading

import pytest

from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.lending_guard import LendingGuard
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import HEADER_BYTES, block_of
from novacron.kv_tiers.tier import LendsBlocks, Loan
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
        at_once=2,
        deadline_s=deadline_s,
        breaker=BreakerConfig(failures=100),
    )


def keys(*numbers: int) -> list[BlockHash]:
    return [key_of(number) for number in numbers]


def contents(loan: Loan) -> list[list[int] | None]:
    table, rows = loan.records
    return [None if row < 0 else block_of(table[row]).tolist() for row in rows]


def test_what_is_there_is_lent_with_its_header() -> None:
    tier = SlowTier()
    put(tier, 1, 2)
    guarded = guard(tier, num_ready=1)
    assert isinstance(guarded, LendsBlocks)
    loan = guarded.lend(keys(1, 9, 2))  # more than was made ready
    assert contents(loan) == [block_content(1).tolist(), None, block_content(2).tolist()]
    header = loan.records.table[loan.records.numbers[2]][:HEADER_BYTES]
    assert header.tobytes() == make_record(2).data[:HEADER_BYTES].tobytes()
    assert loan.is_intact() == [True, False, True]
    guarded.close()


def test_buffers_are_lent_to_one_at_a_time_and_used_again() -> None:
    tier = SlowTier()
    put(tier, *range(8))
    guarded = guard(tier, num_ready=4)
    loans = [guarded.lend(keys(2 * n, 2 * n + 1)) for n in range(4)]
    for turn, loan in enumerate(loans):
        expected = [block_content(2 * turn + place).tolist() for place in range(2)]
        assert contents(loan) == expected
    tables = {id(loan.records.table) for loan in loans}
    assert len(tables) == 4
    for loan in loans:
        loan.is_intact()
    assert {id(guarded.lend(keys(n)).records.table) for n in range(4)} == tables
    guarded.close()


def test_a_late_call_writes_to_nothing_that_is_lent_later() -> None:
    tier = SlowTier()
    put(tier, 1, 2)
    guarded = guard(tier, deadline_s=0.02, num_ready=1)
    late = list(guarded._tables)
    tier.may_read.clear()
    tier.has_read.clear()
    with pytest.raises(TimeoutError):
        guarded.lend(keys(1))
    tier.may_read.set()
    assert tier.has_read.wait(PATIENCE_S)
    loans = [guarded.lend(keys(2)) for _ in range(2)]
    for loan in loans:  # neither in the buffer of the late call
        assert contents(loan) == [block_content(2).tolist()]
        assert loan.records.table is not late[0]
    guarded.close()
