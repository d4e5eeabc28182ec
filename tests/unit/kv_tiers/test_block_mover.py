"""Copies beside the steps: never a torn block, never a wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from novacron.kv_tiers.block_mover import BlockMover, written_blocks
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.tier import Bytes, KVTier, NewBlock, Put, Record, Reservation
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    BlockOrigin,
    LoadBlock,
    LoadBlocks,
    LoadedBlocks,
    StoreBlock,
    TierKeys,
)
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.testing.kv_records import (
    BLOCK_BYTES,
    IDENTITY,
    RECORD_BYTES,
    block_content,
    held,
    key_of,
    make_record,
    put,
)

PATIENCE_S = 30.0


class Memory:
    """Blocks of numbers. `in_the_middle` runs when half of a block has been copied."""

    block_bytes = BLOCK_BYTES
    block_size = 4

    def __init__(self, num_blocks: int) -> None:
        self.blocks = np.zeros((num_blocks, BLOCK_BYTES), np.uint8)
        self.in_the_middle: Callable[[int], None] = lambda block_id: None

    def fill(self, block_id: int, number: int) -> None:
        self.blocks[block_id] = block_content(number)

    @property
    def host_blocks(self) -> Bytes | None:
        return None

    def see_filled(self, block_ids: Iterable[int]) -> None:
        raise AssertionError("nobody reaches these blocks")

    def read_block(self, block_id: int, into: Bytes) -> None:
        half = BLOCK_BYTES // 2
        into[:half] = self.blocks[block_id, :half]
        self.in_the_middle(block_id)
        into[half:] = self.blocks[block_id, half:]

    def write_block(self, block_id: int, data: Bytes) -> None:
        self.blocks[block_id] = data


class HostMemory(Memory):
    """Blocks that the host reaches. `filled` are those that were filled in place."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__(num_blocks)
        self.filled: list[int] = []

    @property
    def host_blocks(self) -> Bytes | None:
        return self.blocks

    def see_filled(self, block_ids: Iterable[int]) -> None:
        self.filled += block_ids

    def read_block(self, block_id: int, into: Bytes) -> None:
        raise AssertionError("a copy that is not needed")

    def write_block(self, block_id: int, data: Bytes) -> None:
        raise AssertionError("a copy that is not needed")


def ram(num_records: int = 100) -> RamTier:
    return RamTier(num_records * RECORD_BYTES, RECORD_BYTES)


@contextmanager
def moving(
    memory: Memory, *tiers: KVTier, share: float = 1.0, park_in: int | None = None
) -> Iterator[BlockMover]:
    mover = BlockMover(memory, tiers, IDENTITY, share=share, park_in=park_in)
    try:
        yield mover
    finally:
        mover.close()


def store(*numbers: int, tiers: tuple[int, ...] = (0,)) -> BlockOrders:
    """Of block 0 content 0, and so on."""
    return BlockOrders(stores=tuple(StoreBlock(key_of(n), n, tiers) for n in numbers))


def load(load_id: int, *blocks: tuple[int, int], tier: int = 0) -> BlockOrders:
    """(number, device block) each."""
    wanted = tuple(LoadBlock(key_of(number), block_id, tier) for number, block_id in blocks)
    return BlockOrders(loads=(LoadBlocks(load_id, wanted),))


def news_until(
    mover: BlockMover, is_enough: Callable[[Sequence[BlockNews]], bool]
) -> list[BlockNews]:
    """All news up to those that are enough."""
    collected: list[BlockNews] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_enough(collected):
        assert time.monotonic() < deadline_s, collected
        news = mover.news(wait_s=0.1)
        if news is not None:
            collected.append(news)
    return collected


def settled(mover: BlockMover, count: int) -> list[BlockNews]:
    return news_until(mover, lambda all: sum(len(news.settled) for news in all) >= count)


def all_loaded(count: int) -> Callable[[Sequence[BlockNews]], bool]:
    return lambda all: sum(len(news.loaded) for news in all) >= count


def loaded(mover: BlockMover) -> LoadedBlocks:
    return news_until(mover, lambda all: any(news.loaded for news in all))[-1].loaded[0]


def test_blocks_go_to_all_tiers_and_come_back(tmp_path: Path) -> None:
    memory = Memory(40)
    disk = DiskTier(tmp_path, 2**20, RECORD_BYTES, IDENTITY)
    numbers = range(20)
    for number in numbers:
        memory.fill(number, number)
    with moving(memory, ram(), disk) as mover:
        mover.order(store(*numbers, tiers=(0, 1)))
        news = settled(mover, 20)
        keys = tuple(map(key_of, numbers))
        for tier in (0, 1):
            told = [key for one in news for c in one.added if c.tier == tier for key in c.keys]
            assert tuple(told) == keys
            assert news[-1].totals[tier].stored_bytes == 20 * BLOCK_BYTES
            assert news[-1].totals[tier].stores.count == 1, "all at once, in a pause"
            mover.order(load(tier, *((n, 20 + n) for n in numbers), tier=tier))
            assert loaded(mover) == LoadedBlocks(tier, (True,) * 20)
            assert (memory.blocks[20:] == memory.blocks[:20]).all()
            memory.blocks[20:] = 0


class ListeningTier(RamTier):
    """Keeps what it is told of where blocks stand."""

    def __init__(self) -> None:
        super().__init__(10 * RECORD_BYTES, RECORD_BYTES)
        self.origins: list[BlockOrigin] = []

    def reserve(self, blocks: Sequence[NewBlock]) -> Reservation:
        self.origins += [block.origin for block in blocks]
        return super().reserve(blocks)


def test_a_tier_is_told_where_a_block_stands() -> None:
    tier = ListeningTier()
    origins = [BlockOrigin(None, 0, b"session", b"scope"), BlockOrigin(key_of(0), 1)]
    orders = tuple(StoreBlock(key_of(n), n, (0,), origin) for n, origin in enumerate(origins))
    with moving(Memory(2), tier) as mover:
        mover.order(BlockOrders(stores=orders))
        settled(mover, 2)
    assert tier.origins == origins


def test_blocks_of_the_host_are_moved_in_place_and_by_several_threads(tmp_path: Path) -> None:
    memory = HostMemory(300)
    disk = DiskTier(tmp_path, 2**20, RECORD_BYTES, IDENTITY)
    numbers = range(100)
    for number in numbers:
        memory.fill(number, number)
    with moving(memory, ram(), disk) as mover:
        mover.order(store(*numbers, tiers=(0, 1)))
        settled(mover, 100)
        order = tuple(LoadBlock(key_of(n), 100 + n, n % 2) for n in numbers)
        mover.order(BlockOrders(loads=(LoadBlocks(0, order),)))
        mover.order(load(1, *((n, 200 + n) for n in numbers), tier=1))
        ended = [one for news in news_until(mover, all_loaded(2)) for one in news.loaded]
        assert {one.load_id for one in ended} == {0, 1}
        assert all(all(one.ok) for one in ended)
    assert (memory.blocks[100:200] == memory.blocks[:100]).all()
    assert (memory.blocks[200:] == memory.blocks[:100]).all()
    assert sorted(memory.filled) == list(range(100, 300))


def test_what_does_not_check_is_wiped_from_a_block_of_the_host() -> None:
    memory, tier = HostMemory(2), ram()
    memory.fill(0, 7)
    key, wrong, _ = make_record(3)
    wrong[-1] ^= 1
    tier.put([Record(key, wrong)])
    with moving(memory, tier) as mover:
        mover.order(load(0, (3, 0), (4, 1)))
        assert loaded(mover) == LoadedBlocks(0, (False, False))
    assert (memory.blocks == 0).all()
    assert memory.filled == []


def test_a_block_that_is_given_up_before_its_turn_is_not_stored() -> None:
    memory, tier = Memory(2), ram()
    memory.fill(0, 0)
    copying, go_on = threading.Event(), threading.Event()

    def wait(block_id: int) -> None:
        copying.set()
        go_on.wait(PATIENCE_S)

    memory.in_the_middle = wait
    with moving(memory, tier) as mover:
        mover.order(store(0))
        assert copying.wait(PATIENCE_S)
        mover.order(store(1))
        mover.give_up([1])
        mover.give_up([1])  # once more is harmless
        go_on.set()
        [*_, news] = settled(mover, 2)
        assert held(tier, (0, 1)) == [0]
        assert news.num_stores_dropped == 1


@pytest.mark.parametrize("park_in", [0, None], ids=["parked", "nowhere_to_park"])
def test_a_parked_block_is_stored_at_the_latest_when_it_is_given_up(park_in: int | None) -> None:
    memory, tier, disk = Memory(20), ram(), ram()
    for number in range(20):
        memory.fill(number, number)
    copying, go_on = threading.Event(), threading.Event()

    def wait(block_id: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            copying.set()
            go_on.wait(PATIENCE_S)

    memory.in_the_middle = wait
    with moving(memory, tier, disk, park_in=park_in) as mover:
        mover.order(store(*range(20), tiers=(0, 1)))
        assert copying.wait(PATIENCE_S)
        mover.order(BlockOrders(parked=tuple(range(15))))
        mover.give_up(range(10))  # one of them is being copied
        for number in range(10):
            memory.fill(number, 99)
        assert held(tier, range(20)) == (list(range(10)) if park_in == 0 else [])
        go_on.set()
        news = settled(mover, 20)
        assert held(tier, range(20)) == list(range(0 if park_in == 0 else 10, 20))
        assert held(disk, range(20)) == list(range(10, 20))
        assert news[-1].num_stores_dropped == (0 if park_in == 0 else 10)
        assert news[-1].totals[0].num_parked == (10 if park_in == 0 else 0)


def test_a_block_that_is_given_up_while_it_is_copied_is_thrown_away() -> None:
    """The step writes to it in the middle of the copy."""
    memory, tier = Memory(2), ram()
    memory.fill(0, 0)
    memory.fill(1, 1)
    with moving(memory, tier) as mover:

        def step(block_id: int) -> None:
            if block_id == 0:
                mover.give_up([0])
                memory.fill(0, 99)

        memory.in_the_middle = step
        mover.order(store(0, 1))
        [*_, news] = settled(mover, 2)
        assert held(tier, (0, 1)) == [1]
        assert news.num_stores_dropped == 1


def test_a_parked_block_that_is_given_up_while_it_is_copied_is_stored_by_who_gives_it_up() -> None:
    memory, tier = Memory(1), ram()
    memory.fill(0, 0)
    has_given_up = threading.Event()

    def step() -> None:
        mover.give_up([0])
        memory.fill(0, 99)
        has_given_up.set()

    thread = threading.Thread(target=step)

    def in_the_middle(block_id: int) -> None:
        memory.in_the_middle = lambda block_id: None
        thread.start()
        assert has_given_up.wait(PATIENCE_S), "it does not wait for the copy that is being made"

    with moving(memory, tier, park_in=0) as mover:
        memory.in_the_middle = in_the_middle
        mover.order(msgspec.structs.replace(store(0), parked=(0,)))
        [*_, news] = settled(mover, 1)
        thread.join(PATIENCE_S)
        assert held(tier, (0,)) == [0]
        assert news.num_stores_dropped == 0


def test_torn_copies_never_get_out_whatever_the_steps_do() -> None:
    """Blocks are rewritten all the time by a thread that gives them up first, as steps do."""
    memory, tier = Memory(8), ram(1000)
    memory.in_the_middle = lambda block_id: time.sleep(0)
    rng = np.random.default_rng(3)
    with moving(memory, tier) as mover:
        told: list[BlockNews] = []
        for number in range(600):
            block_id = int(rng.integers(8))
            mover.give_up([block_id])
            memory.fill(block_id, number)
            mover.order(BlockOrders(stores=(StoreBlock(key_of(number), block_id, (0,)),)))
            news = mover.news()
            told += [] if news is None else [news]
        count = sum(len(news.settled) for news in told)
        told += settled(mover, 600 - count)
        kept = held(tier, range(600))  # asserts that each is what it should be
        added = [key for news in told for change in news.added for key in change.keys]
        assert set(map(key_of, kept)) == set(added)
        assert len(kept) + told[-1].num_stores_dropped == 600


def test_a_record_that_does_not_check_is_a_miss_and_goes() -> None:
    memory, tier = Memory(4), ram()
    put(tier, 1, 2)
    wrong = make_record(3)
    wrong.data[-1] ^= 1
    tier.put([wrong, Record(key_of(4), make_record(5).data)])  # and one under another's name
    with moving(memory, tier) as mover:
        mover.order(load(0, (1, 0), (3, 1), (4, 2), (2, 3)))
        [news] = news_until(mover, lambda all: any(one.loaded for one in all))[-1:]
    assert news.loaded == (LoadedBlocks(0, (True, False, False, True)),)
    assert news.removed == (TierKeys(0, (key_of(3), key_of(4))),)
    assert (news.totals[0].num_mismatches, news.totals[0].num_loaded) == (2, 2)
    assert news.totals[0].loads.count == 1
    assert (memory.blocks[1] == 0).all(), "nothing of it reaches the device"
    assert (memory.blocks[3] == block_content(2)).all()


class BrokenTier:
    """Fails in every way it is asked to."""

    used_bytes = 0

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.num_calls = 0

    def _fail(self) -> None:
        self.num_calls += 1
        raise self.error

    def put(self, records: Sequence[Record]) -> Put:
        self._fail()
        raise AssertionError

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        self._fail()
        raise AssertionError

    def contains(self, keys: object) -> list[bool]:
        self._fail()
        raise AssertionError

    def delete(self, keys: object) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("a bug")])
def test_a_tier_that_fails_takes_nothing_with_it(error: Exception) -> None:
    memory = Memory(4)
    memory.fill(0, 0)
    broken, tier = BrokenTier(error), ram()
    with moving(memory, tier, broken) as mover:
        mover.order(store(0, tiers=(0, 1)))
        settled(mover, 1)
        assert held(tier, (0,)) == [0]
        mover.order(load(5, (0, 2), (1, 3), tier=1))
        assert loaded(mover) == LoadedBlocks(5, (False, False))
        mover.order(load(6, (0, 2), tier=0))
        assert loaded(mover) == LoadedBlocks(6, (True,))


def test_a_tier_that_failed_rests() -> None:
    memory, broken = Memory(4), BrokenTier(OSError(5, "broken"))
    guarded = GuardedTier(broken, "broken", deadline_s=None, breaker=BreakerConfig(failures=1))
    with moving(memory, guarded) as mover:
        mover.order(store(0))
        settled(mover, 1)
        mover.order(store(1, 2, 3))
        [*_, news] = settled(mover, 3)
    assert broken.num_calls == 1
    assert news.totals[0].num_errors == 1
    assert (news.totals[0].store_breaker, news.totals[0].load_breaker) == ("open", "closed")


def test_what_a_tier_fails_to_bring_is_not_forgotten() -> None:
    broken = BrokenTier(OSError(5, "broken"))
    with moving(Memory(4), broken) as mover:
        mover.order(load(0, (1, 0)))
        [news] = news_until(mover, lambda all: any(one.loaded for one in all))[-1:]
    assert news.loaded == (LoadedBlocks(0, (False,)),)
    assert news.removed == ()
    assert (news.totals[0].num_errors, news.totals[0].num_missing) == (1, 0)


def test_an_order_does_not_wait_for_a_slow_copy() -> None:
    memory, tier = Memory(4), ram()
    go_on = threading.Event()
    for number in range(3):
        memory.fill(number, number)

    def wait(block_id: int) -> None:
        go_on.wait(PATIENCE_S)

    memory.in_the_middle = wait
    with moving(memory, tier) as mover:
        mover.order(store(0, 1))
        mover.order(store(2))
        mover.begin_step(SchedulerOutput(1, (), (), (), ()))
        mover.end_step()
        assert mover.news() is None
        put(tier, 3)
        mover.order(load(0, (3, 3)))  # a load does not wait for stores either
        assert loaded(mover) == LoadedBlocks(0, (True,))
        go_on.set()
        settled(mover, 3)


def test_while_steps_run_stores_take_a_small_share_of_the_time() -> None:
    """The clock stands still, but for what copies take: 1 s each."""
    now_s = [0.0]
    memory, tier = Memory(40), ram()
    for number in range(40):
        memory.fill(number, number)

    def take_a_second(block_id: int) -> None:
        now_s[0] += 1.0

    memory.in_the_middle = take_a_second
    mover = BlockMover(
        memory, [tier], IDENTITY, share=0.1, clock=lambda: now_s[0], cpu_clock=lambda: now_s[0]
    )
    try:
        mover.begin_step(SchedulerOutput(1, (), (), (), ()))  # and it does not end
        mover.order(store(*range(40)))
        settled(mover, 16)  # at once
        assert mover.news(wait_s=0.1) is None
        now_s[0] += 159.0
        assert mover.news(wait_s=0.1) is None
        now_s[0] += 1.1  # ten times what it took
        settled(mover, 16)
        mover.end_step()
        now_s[0] += 1.0  # a pause
        settled(mover, 8)
        assert held(tier, range(40)) == list(range(40))
    finally:
        mover.close()


def test_at_its_end_it_stores_what_waits(tmp_path: Path) -> None:
    memory = Memory(8)
    for number in range(8):
        memory.fill(number, number)
    mover = BlockMover(
        memory, [DiskTier(tmp_path, 2**20, RECORD_BYTES, IDENTITY)], IDENTITY, share=0.0001
    )
    mover.begin_step(SchedulerOutput(1, (), (), (), ()))
    mover.order(store(*range(8)))
    mover.close(patience_s=PATIENCE_S)
    assert held(DiskTier(tmp_path, 2**20, RECORD_BYTES, IDENTITY), range(8)) == list(range(8))


def test_forgotten_blocks_are_gone() -> None:
    memory, tier = Memory(2), ram()
    put(tier, 1, 2)
    with moving(memory, tier) as mover:
        mover.order(BlockOrders(forgotten=(key_of(1),)))
        assert held(tier, (1, 2)) == [2]


def test_what_is_dropped_leaves_one_tier_and_is_told() -> None:
    memory, first, second = Memory(3), ram(), ram()
    for number in range(3):
        memory.fill(number, number)
    with moving(memory, first, second) as mover:
        mover.order(store(0, 1, 2, tiers=(0, 1)))
        settled(mover, 3)
        mover.order(BlockOrders(dropped=(TierKeys(1, (key_of(0), key_of(2))),)))
        news = news_until(mover, lambda all: any(one.num_drops for one in all))
        assert [one.num_drops for one in news if one.num_drops] == [1]
        assert news[-1].totals[1].used_bytes == RECORD_BYTES
        assert (held(first, range(3)), held(second, range(3))) == ([0, 1, 2], [1])


def test_tiers_see_what_is_pinned() -> None:
    pinned = PinnedBlocks()
    mover = BlockMover(Memory(1), (), IDENTITY, pinned=pinned, share=1.0)
    mover.order(BlockOrders(pinned=(key_of(1),)))
    assert [key_of(n) in pinned for n in (1, 2)] == [True, False]
    mover.order(BlockOrders())
    assert key_of(1) in pinned, "as before"
    mover.order(BlockOrders(pinned=()))
    assert key_of(1) not in pinned
    mover.close()


def test_what_a_step_writes_to() -> None:
    new = NewRequest("new", (1,) * 12, 12, SamplingParams(seed=0))
    step = SchedulerOutput(
        1,
        (new,),
        (
            ScheduledTokens("new", 8, 4, (5, 6, 7)),  # two blocks were found
            ScheduledTokens("running", 8, 1, (9,)),
            ScheduledTokens("deeper in its block", 9, 1, ()),
        ),
        (),
        (),
    )
    assert list(written_blocks(step, 4)) == [7, 9]
