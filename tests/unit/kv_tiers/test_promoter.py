from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest

from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.promoter import Promoter
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.tier import KVTier
from novacron.records.block_moves import BlockNews, PromoteBlocks
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record, put

PATIENCE_S = 30.0
News = Queue[tuple[BlockNews, int, int]]


@pytest.fixture
def disk(tmp_path: Path) -> DiskTier:
    return DiskTier(tmp_path, 8 * 64 * 1024, RECORD_BYTES, IDENTITY)


def small_ram(num_records: int) -> RamTier:
    return RamTier(num_records * RECORD_BYTES, RECORD_BYTES)


@contextmanager
def promoting(*tiers: KVTier) -> Iterator[tuple[Promoter, News]]:
    news: News = Queue()
    promoter = Promoter(tiers, IDENTITY, RECORD_BYTES, lambda *what: news.put(what))
    try:
        yield promoter, news
    finally:
        promoter.close(PATIENCE_S)


def until_promoted(news: News, count: int) -> list[BlockNews]:
    collected: list[BlockNews] = []
    while sum(len(one.promoted) for one in collected) < count:
        collected.append(news.get(timeout=PATIENCE_S)[0])
    return collected


def order(numbers: Sequence[int]) -> list[PromoteBlocks]:
    return [PromoteBlocks(1, 0, tuple(map(key_of, numbers)))]


def test_blocks_come_into_the_faster_tier_and_stay_in_the_slower(disk: DiskTier) -> None:
    buffer = small_ram(30)
    put(disk, *range(20))
    with promoting(buffer, disk) as (promoter, news):
        promoter.order(order(range(25)))  # five of which are not there
        told = until_promoted(news, 25)
    assert held(buffer, range(25)) == held(disk, range(25)) == list(range(20))
    added = [key for one in told for change in one.added for key in change.keys]
    assert added == [key_of(n) for n in range(20)]


def test_what_does_not_check_is_left_out(disk: DiskTier) -> None:
    buffer, wrong = small_ram(4), make_record(1)
    wrong.data[-1] ^= 1
    disk.put([wrong, make_record(2)])
    with promoting(buffer, disk) as (promoter, news):
        promoter.order(order([1, 2]))
        until_promoted(news, 2)
    assert held(buffer, [2]) == [2]
    assert buffer.contains([key_of(1)]) == [False]


def test_a_small_buffer_tells_what_it_gave_up(disk: DiskTier) -> None:
    buffer = small_ram(4)
    put(disk, *range(12))
    with promoting(buffer, disk) as (promoter, news):
        promoter.order(order(range(12)))
        told = until_promoted(news, 12)
    here: set[bytes] = set()
    for one in told:
        here |= {key for change in one.added for key in change.keys}
        here -= {key for change in one.removed for key in change.keys}
    assert here == set(map(key_of, held(buffer, range(12))))
    assert len(here) == 4


def test_a_tier_that_fails_ends_the_order_and_no_more(disk: DiskTier) -> None:
    class Broken(RamTier):
        def put(self, records: object) -> object:  # type: ignore[override]
            raise OSError("broken")

    put(disk, 1)
    with promoting(Broken(RECORD_BYTES, RECORD_BYTES), disk) as (promoter, news):
        for _ in range(2):
            promoter.order(order([1]))
            [told] = until_promoted(news, 1)
            assert told.added == ()
