"""Slots of a RAM tier: each is one record's, whoever writes there, and none is ever lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName
from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.ram_places import NOWHERE
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.tier import Put, Reservation
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin, StoreBlock
from novacron.testing.kv_records import RECORD_BYTES, key_of

NUM_SLOTS = 200  # three of them free ahead


def orders(numbers: list[int]) -> list[StoreBlock]:
    return [StoreBlock(key_of(n), 0, (0,), BlockOrigin(None, 0)) for n in numbers]


class Writer:
    """A reservation that is under way."""

    def __init__(self, tier: RamTier, numbers: list[int]) -> None:
        self.tier = tier
        self.reserved: Reservation = tier.reserve(orders(numbers))

    @property
    def slots(self) -> set[int]:
        return {slot for slot in self.reserved.places.numbers.tolist() if slot != NOWHERE}

    def end(self, *, is_whole: bool) -> Put:
        put = self.tier.settle(self.reserved, [is_whole] * len(self.reserved.keys))
        self.tier.release(self.reserved)
        return put


@given(
    name=st.sampled_from(POLICY_NAMES),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["reserve", "reserve", "settle", "give up", "catch up", "delete"]),
            st.lists(st.integers(0, 300), max_size=60, unique=True),
        ),
        max_size=30,
    ),
)
def test_each_slot_is_one_records(name: PolicyName, calls: list[tuple[str, list[int]]]) -> None:
    tier = RamTier(NUM_SLOTS * RECORD_BYTES, RECORD_BYTES, policy=PolicyConfig(name=name))
    writers: list[Writer] = []
    for what, numbers in calls:
        if what == "reserve" and len(writers) < 3:
            writers.append(Writer(tier, numbers))
            slots = [slot for writer in writers for slot in writer.slots]
            assert len(set(slots)) == len(slots), "two write to one place"
        elif what in ("settle", "give up") and writers:
            put = writers.pop(0).end(is_whole=what == "settle")
            assert not set(put.stored) & set(put.dropped)
        elif what == "catch up":
            tier.catch_up()
        elif what == "delete":
            tier.delete([key_of(n) for n in numbers])
    for writer in writers:
        writer.end(is_whole=True)
    while tier.is_behind:
        tier.catch_up()
    assert tier.used_bytes <= NUM_SLOTS * RECORD_BYTES
    tier.delete([key_of(n) for n in range(301)])
    assert tier.used_bytes == 0
    everything = Writer(tier, list(range(1000, 1000 + NUM_SLOTS)))
    assert len(everything.slots) == NUM_SLOTS, "none is lost"


def test_a_block_that_is_being_written_gets_another_place_for_who_writes_it_anew() -> None:
    tier = RamTier(NUM_SLOTS * RECORD_BYTES, RECORD_BYTES)
    first, second = Writer(tier, [1]), Writer(tier, [1])
    assert first.slots != second.slots
    assert second.end(is_whole=True).stored == (key_of(1),)
    first.end(is_whole=False)
    assert tier.contains([key_of(1)]) == [True], "what the first left unfinished is not its place"


def test_a_policy_hears_of_what_came_before_it_is_asked() -> None:
    protection = Protection(NO_PINS, NUM_SLOTS)
    tier = RamTier(NUM_SLOTS * RECORD_BYTES, RECORD_BYTES, protection=protection)
    block = StoreBlock(key_of(1), 0, (0,), BlockOrigin(None, 0, scope=b"tenant"))
    reserved = tier.reserve([block])
    tier.settle(reserved, [True])
    tier.release(reserved)
    assert tier.is_behind
    told: list[BlockHash] = tier.keys_of(b"tenant")
    assert told == [key_of(1)]
    assert not tier.is_behind


def test_no_more_is_left_untold_than_an_answer_may_wait_for() -> None:
    tier = RamTier(2000 * RECORD_BYTES, RECORD_BYTES)
    for first in range(0, 2000, 100):
        Writer(tier, list(range(first, first + 100))).end(is_whole=True)
    rounds = 0
    while tier.is_behind:
        assert tier.catch_up() == [] or rounds > 10
        rounds += 1
    assert rounds <= (256 + 31) / 16 + 2, "what waited, and the places that are free ahead"
