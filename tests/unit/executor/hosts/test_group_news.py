"""What is told of blocks that several hosts have parts of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.executor.hosts.group_news import GroupNews
from novacron.executor.hosts.part_holders import SeenHolders
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    LoadedBlocks,
    LookUp,
    StoreBlock,
    TierKeys,
    TierTotals,
)

A, B = (BlockHash(bytes([number]) * 16) for number in (1, 2))
KEYS = (A, B)


def news_of(added: tuple[BlockHash, ...] = (), removed: tuple[BlockHash, ...] = ()) -> BlockNews:
    return BlockNews(
        added=(TierKeys(0, added),) if added else (),
        removed=(TierKeys(0, removed),) if removed else (),
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # rank
            st.lists(st.sampled_from(KEYS)),
            st.lists(st.sampled_from(KEYS)),
            st.booleans(),  # whether news are asked for then
        ),
        max_size=30,
    )
)
def test_a_block_is_where_all_have_their_part(
    events: list[tuple[int, list[BlockHash], list[BlockHash], bool]],
) -> None:
    group = GroupNews(3)
    held: list[set[BlockHash]] = [set(), set(), set()]
    told: set[BlockHash] = set()
    for rank, added, removed, asks in [*events, (0, [], [], True)]:
        held[rank] = (held[rank] | set(added)) - set(removed)
        group.take(rank, news_of(tuple(added), tuple(removed)))
        if not asks:
            continue
        news = group.news()
        assert news is not None
        for change in news.added:
            assert told.isdisjoint(change.keys), "told twice"
            told.update(change.keys)
        for change in news.removed:
            assert told.issuperset(change.keys), "was never told of"
            told.difference_update(change.keys)
        assert told == set.intersection(*held)
        assert group.news() is None


def test_torn_blocks_are_those_that_some_have_and_others_have_not() -> None:
    group = GroupNews(2)
    group.take(0, news_of((A, B)))
    group.take(1, news_of((A,)))
    assert group.torn == (TierKeys(0, (B,)),)
    group.take(1, news_of(removed=(A,)))
    assert set(group.torn[0].keys) == {A, B}
    group.see_orders(BlockOrders(dropped=group.torn))
    assert not group.torn


def shared_by_two() -> GroupNews:
    return GroupNews(2, 1, shared=(0,))


def added_of(group: GroupNews) -> tuple[BlockHash, ...]:
    news = group.news()
    assert news is not None
    return tuple(key for change in news.added for key in change.keys)


def test_what_all_see_in_a_shared_tier_is_told_each_time() -> None:
    group = shared_by_two()
    for _ in range(2):  # who asks may have forgotten it meanwhile
        group.take(0, news_of((A, B)))
        group.take(1, news_of((A,)))
        assert added_of(group) == (A,)
        group.see_orders(BlockOrders(lookups=(LookUp(1, 0, (A, B)),)))


def test_what_was_seen_before_a_lookup_does_not_count() -> None:
    group = shared_by_two()
    group.take(0, news_of((A,)))
    group.see_orders(BlockOrders(lookups=(LookUp(1, 0, (A,)),)))
    group.take(0, BlockNews(looked_up=(1,)))  # it is gone there
    found = BlockNews(added=(TierKeys(0, (A,)),), looked_up=(1,))
    group.take(1, found)
    news = group.news()
    assert news is not None
    assert (news.added, news.looked_up) == ((), (1,))


def test_a_lookup_ends_when_all_have_answered() -> None:
    group = shared_by_two()
    group.take(0, BlockNews(looked_up=(7,)))
    news = group.news()
    assert news is not None
    assert news.looked_up == ()
    group.take(1, BlockNews(looked_up=(7,)))
    news = group.news()
    assert news is not None
    assert news.looked_up == (7,)


def test_parts_of_a_shared_tier_that_wait_for_their_others_are_bounded() -> None:
    holders = SeenHolders(2, most_parts=1)
    holders.add(0, [A, B])
    assert holders.torn == (B,)
    holders.add(1, [A])
    holders.remove(1, [B])
    assert holders.changes() == ((), (B,))
    assert holders.changes() == ((), ())


def test_what_was_ordered_ends_when_all_have_ended_it() -> None:
    group = GroupNews(2)
    group.see_orders(BlockOrders(stores=(StoreBlock(A, 0, (0,)),)))
    assert group.awaits_stores
    first = BlockNews(
        settled=(A,), loaded=(LoadedBlocks(7, (True, True)),), promoted=(B,), num_drops=2
    )
    group.take(0, first)
    news = group.news()
    assert news is not None
    assert (news.settled, news.loaded, news.promoted, news.num_drops) == ((), (), (), 0)
    assert group.awaits_stores
    group.take(
        1,
        BlockNews(
            settled=(A,), loaded=(LoadedBlocks(7, (True, False)),), promoted=(B,), num_drops=1
        ),
    )
    news = group.news()
    assert news is not None
    assert (news.settled, news.promoted, news.num_drops) == ((A,), (B,), 1)
    assert news.loaded == (LoadedBlocks(7, (True, False)),), "a part is missing"
    assert not group.awaits_stores


def test_what_was_dropped_is_whole_again_only_when_all_have_stored_it_again() -> None:
    group = GroupNews(2)
    for orders in (
        BlockOrders(dropped=(TierKeys(0, (A,)),)),
        BlockOrders(forgotten=(A,)),
    ):
        for rank in (0, 1):
            group.take(rank, news_of(added=(A, B)))
        group.news()
        group.see_orders(orders)
        group.take(0, news_of(added=(A,)))
        news = group.news()
        assert news is not None
        assert not news.added
        assert not news.removed, "who dropped it knows"
        group.take(1, news_of(added=(A,)))
        news = group.news()
        assert news is not None
        assert news.added == (TierKeys(0, (A,)),)


def test_totals_are_those_of_all_parts_and_the_worst_state() -> None:
    group = GroupNews(2)
    group.take(0, BlockNews(totals=(TierTotals(used_bytes=3, load_s=0.5, pressure="high"),)))
    group.take(
        1, BlockNews(totals=(TierTotals(used_bytes=4, pressure="low", load_breaker="open"),))
    )
    news = group.news()
    assert news is not None
    [totals] = news.totals
    assert (totals.used_bytes, totals.load_s) == (7, 0.5)
    assert (totals.pressure, totals.load_breaker, totals.store_breaker) == (
        "high", "open", "closed",
    )  # fmt: skip


def test_when_others_begin_anew_what_they_had_and_were_doing_is_gone() -> None:
    group = GroupNews(2)
    for rank in (0, 1):
        group.take(rank, BlockNews((TierKeys(0, (A, B)),), totals=(TierTotals(num_stored=2),)))
    group.news()
    c = BlockHash(bytes([3]) * 16)
    group.see_orders(BlockOrders(stores=(StoreBlock(c, 0, (0,)),)))
    done = BlockNews(
        (TierKeys(0, (c,)),),
        settled=(c,),
        loaded=(LoadedBlocks(7, (True, True)),),
        promoted=(B,),
        num_drops=2,
        totals=(TierTotals(num_stored=3, used_bytes=5),),
    )
    group.take(0, done)
    group.begin_anew()
    assert not group.awaits_stores
    group.take(1, BlockNews((TierKeys(0, (A,)),), totals=(TierTotals(num_stored=0),)))
    news = group.news()
    assert news is not None
    assert news.removed == (TierKeys(0, (B,)),)
    assert news.added == ()
    assert (news.settled, news.promoted, news.num_drops) == ((c,), (B,), 2)
    assert news.loaded == (LoadedBlocks(7, (False, False)),)
    [totals] = news.totals
    assert (totals.num_stored, totals.used_bytes) == (5, 5), "what was counted stays counted"
    group.take(0, BlockNews(settled=(A,)))
    group.take(1, BlockNews(settled=(A,)))
    news = group.news()
    assert news is not None
    assert news.settled == (A,)
