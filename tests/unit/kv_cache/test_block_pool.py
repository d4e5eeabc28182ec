from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from novacron.kv_cache.block_pool import BlockPool
from novacron.records.block import BlockHash


def name(text: str) -> BlockHash:
    return BlockHash(text.encode())


def pool_with_cached(*names: str, num_blocks: int = 4) -> tuple[BlockPool, dict[str, int]]:
    """A pool that holds a cached block of each name, freed in this order."""
    pool = BlockPool(num_blocks)
    blocks = dict(zip(names, pool.allocate(len(names)), strict=True))
    for text, block_id in blocks.items():
        pool.register(block_id, name(text))
    pool.free(blocks.values())
    return pool, blocks


def counts(pool: BlockPool) -> tuple[int, int, int]:
    pool.check_integrity()
    return pool.num_free, pool.num_used, pool.num_cached


def test_blocks_are_handed_out_once_each() -> None:
    pool = BlockPool(4)
    assert sorted(pool.allocate(3) + pool.allocate(1)) == [0, 1, 2, 3]
    assert counts(pool) == (0, 4, 0)


def test_a_freed_block_without_content_is_free_again() -> None:
    pool = BlockPool(2)
    pool.free(pool.allocate(2))
    assert counts(pool) == (2, 0, 0)


def test_a_freed_block_with_content_can_be_found_and_shared() -> None:
    pool, blocks = pool_with_cached("a")
    assert counts(pool) == (3, 0, 1)
    assert pool.lookup(name("a")) == blocks["a"]
    pool.touch([blocks["a"]])
    pool.touch([blocks["a"]])
    assert counts(pool) == (3, 1, 0)
    pool.free([blocks["a"]])
    assert counts(pool) == (3, 1, 0)
    pool.free([blocks["a"]])
    assert counts(pool) == (3, 0, 1)


def test_free_blocks_go_before_cached_ones_and_the_oldest_cached_first() -> None:
    pool, blocks = pool_with_cached("a", "b", "c")
    pool.touch([blocks["a"]])  # used since: now the youngest
    pool.free([blocks["a"]])
    (free,) = pool.allocate(1)
    assert free not in blocks.values()
    assert pool.allocate(2) == [blocks["b"], blocks["c"]]
    assert pool.lookup(name("b")) is None
    assert pool.lookup(name("a")) == blocks["a"]
    assert counts(pool) == (0, 3, 1)


def test_of_two_blocks_with_equal_content_the_first_is_found() -> None:
    pool = BlockPool(3)
    first, second = pool.allocate(2)
    pool.register(first, name("a"))
    pool.register(second, name("a"))
    assert pool.lookup(name("a")) == first
    pool.free([first, second])
    assert counts(pool) == (2, 0, 1)


def test_a_forgotten_block_keeps_its_holders_and_is_not_found() -> None:
    pool, blocks = pool_with_cached("a", "b")
    pool.touch([blocks["a"]])
    pool.forget(blocks.values())
    assert pool.lookup(name("a")) is None
    assert pool.lookup(name("b")) is None
    assert counts(pool) == (3, 1, 0)
    pool.free([blocks["a"]])
    assert counts(pool) == (4, 0, 0)


def test_the_content_of_a_forgotten_block_can_be_registered_anew() -> None:
    pool, blocks = pool_with_cached("a")
    pool.forget(blocks.values())
    (other,) = pool.allocate(1)
    pool.register(other, name("a"))
    assert pool.lookup(name("a")) == other


def test_freeing_more_often_than_held_is_caught() -> None:
    pool = BlockPool(1)
    block_ids = pool.allocate(1)
    pool.free(block_ids)
    with pytest.raises(AssertionError, match="more often"):
        pool.free(block_ids)


def test_integrity_check_finds_a_lost_block() -> None:
    pool = BlockPool(2)
    pool._free.pop()
    with pytest.raises(AssertionError):
        pool.check_integrity()


class AnyUse(RuleBasedStateMachine):
    """Holders come and go; the pool must agree with a plain model of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(6)
        self.holders: list[int] = []  # a block id for each holder
        self.content: dict[int, str] = {}  # of blocks that must be found if not evicted

    @rule(count=st.integers(1, 6))
    def allocate(self, count: int) -> None:
        if count > self.pool.num_available:
            return
        taken = self.pool.allocate(count)
        assert len(set(taken)) == count
        assert not set(taken) & set(self.holders), "a held block was handed out"
        self.holders += taken
        for block_id in taken:
            self.content.pop(block_id, None)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), text=st.sampled_from("abcd"))
    def register(self, data: st.DataObject, text: str) -> None:
        block_id = data.draw(st.sampled_from(self.holders))
        if block_id in self.content:
            return
        self.pool.register(block_id, name(text))
        if text not in self.content.values():
            self.content[block_id] = text

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        block_id, text = data.draw(st.sampled_from(sorted(self.content.items())))
        assert self.pool.lookup(name(text)) == block_id
        self.pool.touch([block_id])
        self.holders.append(block_id)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        block_id = data.draw(st.sampled_from(self.holders))
        self.holders.remove(block_id)
        self.pool.free([block_id])

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        block_id = data.draw(st.sampled_from(sorted(self.content)))
        self.pool.forget([block_id])
        del self.content[block_id]

    @invariant()
    def adds_up(self) -> None:
        self.pool.check_integrity()
        assert self.pool.num_used == len(set(self.holders))
        assert self.pool.num_cached == len(self.content.keys() - set(self.holders))
        for text in "abcd":
            block_id = self.pool.lookup(name(text))
            assert (block_id is None) == (text not in self.content.values())


AnyUse.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyUse = AnyUse.TestCase
