from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.kv_tiers.tier_index import TierIndex
from novacron.records.block_moves import BlockNews, BlockOrders, StoreBlock, TierKeys
from novacron.testing.kv_records import key_of


def added(tier: int, *numbers: int) -> BlockNews:
    keys = tuple(map(key_of, numbers))
    return BlockNews(added=(TierKeys(tier, keys),), settled=keys)


def test_a_block_is_ordered_once_and_only_where_it_is_not_yet() -> None:
    index = TierIndex(2)
    index.offer(key_of(1), 7)
    index.offer(key_of(1), 7)
    assert index.take_orders() == BlockOrders(stores=(StoreBlock(key_of(1), 7, (0, 1)),))
    index.offer(key_of(1), 7)
    assert index.take_orders() is None
    index.see(added(1, 1))
    index.offer(key_of(1), 8)
    assert index.take_orders() == BlockOrders(stores=(StoreBlock(key_of(1), 8, (0,)),))


def test_a_store_that_was_given_up_is_ordered_again_when_the_block_is_back() -> None:
    index = TierIndex(1)
    index.offer(key_of(1), 7)
    index.take_orders()
    index.see(BlockNews(settled=(key_of(1),)))
    assert index.tier_of(key_of(1)) is None
    index.offer(key_of(1), 3)
    assert index.take_orders() == BlockOrders(stores=(StoreBlock(key_of(1), 3, (0,)),))


def test_what_others_build_upon_was_used_last() -> None:
    index = TierIndex(1)
    index.see(added(0, 1, 2, 3))
    index.use(map(key_of, (1, 2, 3, 4)))
    orders = index.take_orders()
    assert orders is not None
    assert orders.used == tuple(map(key_of, (3, 2, 1)))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "forget"]), st.integers(0, 2), st.integers(0, 5)
        ),
        max_size=40,
    )
)
def test_it_knows_what_it_was_told(changes: list[tuple[str, int, int]]) -> None:
    index = TierIndex(3)
    held: set[tuple[int, int]] = set()
    for what, tier, number in changes:
        if what == "add":
            index.see(added(tier, number))
            held.add((tier, number))
        elif what == "remove":
            index.see(BlockNews(removed=(TierKeys(tier, (key_of(number),)),)))
            held.discard((tier, number))
        else:
            index.forget([key_of(number)])
            held = {one for one in held if one[1] != number}
        index.check_integrity()
        for other in range(6):
            expected = [t for t in range(3) if (t, other) in held]
            assert list(index.tiers_of(key_of(other))) == expected
            assert index.tier_of(key_of(other)) == (expected[0] if expected else None)
