"""GroupNews: what became of blocks on several hosts, each of which moves its own part. Pure.

A block is in a tier when all ranks have their part there, is loaded when all have loaded theirs,
and settled when all have done with it. Parts that are left where others are gone lie until their
tier has better use for the room, and count again once the block is whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, TypeVar

import msgspec

from novacron.executor.hosts.part_holders import OwnHolders, PartHolders, SeenHolders
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    LoadedBlocks,
    TierKeys,
    TierTotals,
)
from novacron.records.codec_totals import sum_of_codecs
from novacron.records.output import BREAKERS, PRESSURES

Named = TypeVar("Named", BlockHash, int)

_WORST: Final = {"load_breaker": BREAKERS, "store_breaker": BREAKERS, "pressure": PRESSURES}


class GroupNews:
    """Of `num_ranks` ranks with `num_tiers` tiers each, of which those in `shared` are filled by
    others, too. Each rank gets all orders, and is heard of in the order in which it tells."""

    def __init__(self, num_ranks: int, num_tiers: int = 1, shared: Collection[int] = ()) -> None:
        self.num_ranks = num_ranks
        self._holders: list[PartHolders] = [
            (SeenHolders if tier in shared else OwnHolders)(num_ranks) for tier in range(num_tiers)
        ]
        self._looked_up: Counter[int] = Counter()
        self._storing: set[BlockHash] = set()
        self._settled: Counter[BlockHash] = Counter()
        self._promoted: Counter[BlockHash] = Counter()
        self._loads: dict[int, list[tuple[bool, ...]]] = {}
        self._drops = [0] * num_ranks
        self._num_drops_told = 0
        self._newest: dict[int, BlockNews] = {}
        self._past: list[tuple[TierTotals, ...]] = []  # of ranks that are gone
        self._told = _Told()
        self._is_new = False

    @property
    def awaits_stores(self) -> bool:
        """Whether any rank may still be about to copy a block."""
        return bool(self._storing)

    @property
    def torn(self) -> tuple[TierKeys, ...]:
        """Blocks of which some ranks have their part, and others have not, as far as they told."""
        return _by_tier([holders.torn for holders in self._holders])

    def see_orders(self, orders: BlockOrders) -> None:
        """What all ranks are told. Who orders blocks to be dropped takes them for gone at once."""
        self._storing.update(store.key for store in orders.stores)
        for change in orders.dropped:
            self._holders[change.tier].forget(change.keys)
        for holders in self._holders:
            holders.forget(orders.forgotten)
        for lookup in orders.lookups:
            self._holders[lookup.tier].ask(lookup.keys)

    def begin_anew(self) -> None:
        """All ranks but the first begin with empty hands, and tell what they hold; the first has
        done everything that it was told. What was under way for the others has failed."""
        for holders in self._holders:
            holders.begin_anew()
        self._told.settled += self._storing
        self._told.promoted += self._promoted
        self._told.looked_up += self._looked_up
        ended = [(load.load_id, load.ok) for load in self._told.loaded]
        under_way = [(load_id, found[0]) for load_id, found in self._loads.items()]
        self._told.loaded = [  # what others had of them is gone as well
            LoadedBlocks(load_id, (False,) * len(blocks)) for load_id, blocks in ended + under_way
        ]
        self._storing.clear()
        self._settled.clear()
        self._promoted.clear()
        self._looked_up.clear()
        self._loads.clear()
        self._drops = [self._drops[0]] * self.num_ranks
        gone = [self._newest.pop(rank) for rank in range(1, self.num_ranks) if rank in self._newest]
        self._past = [sum_of_totals([*self._past, *(_counted(one.totals) for one in gone)])]
        self._is_new = bool(self._newest)

    def take(self, rank: int, news: BlockNews) -> None:
        self._is_new = True
        self._newest[rank] = news
        for change in news.added:
            self._holders[change.tier].add(rank, change.keys)
        for change in news.removed:
            self._holders[change.tier].remove(rank, change.keys)
        settled = self._ended_for_all(self._settled, news.settled)
        self._storing.difference_update(settled)
        self._told.settled += settled
        self._told.promoted += self._ended_for_all(self._promoted, news.promoted)
        self._told.looked_up += self._ended_for_all(self._looked_up, news.looked_up)
        for load in news.loaded:
            self._end_load(load)
        self._drops[rank] += news.num_drops

    def news(self) -> BlockNews | None:
        """What can be told of all since the last call, as TierDesk would."""
        if not self._is_new:
            return None
        changes = [holders.changes() for holders in self._holders]
        num_drops = min(self._drops)
        news = BlockNews(
            added=_by_tier([added for added, _ in changes]),
            removed=_by_tier([removed for _, removed in changes]),
            settled=tuple(self._told.settled),
            loaded=tuple(self._told.loaded),
            num_stores_dropped=max(one.num_stores_dropped for one in self._newest.values()),
            totals=sum_of_totals([*self._past, *(one.totals for one in self._newest.values())]),
            looked_up=tuple(self._told.looked_up),
            num_drops=num_drops - self._num_drops_told,
            promoted=tuple(self._told.promoted),
        )
        self._num_drops_told = num_drops
        self._told, self._is_new = _Told(), False
        return news

    def _ended_for_all(self, ended: Counter[Named], keys: Sequence[Named]) -> list[Named]:
        ended.update(keys)
        whole = [key for key in keys if ended[key] == self.num_ranks]
        for key in whole:
            del ended[key]
        return whole

    def _end_load(self, load: LoadedBlocks) -> None:
        found = self._loads.setdefault(load.load_id, [])
        found.append(load.ok)
        if len(found) == self.num_ranks:
            del self._loads[load.load_id]
            ok = tuple(all(of_block) for of_block in zip(*found, strict=True))
            self._told.loaded.append(LoadedBlocks(load.load_id, ok))


class _Told:
    """What is to be told next."""

    def __init__(self) -> None:
        self.settled: list[BlockHash] = []
        self.promoted: list[BlockHash] = []
        self.looked_up: list[int] = []
        self.loaded: list[LoadedBlocks] = []


def _by_tier(of_tiers: Sequence[tuple[BlockHash, ...]]) -> tuple[TierKeys, ...]:
    return tuple(TierKeys(tier, keys) for tier, keys in enumerate(of_tiers) if keys)


def _counted(tiers: tuple[TierTotals, ...]) -> tuple[TierTotals, ...]:
    """Without what they were like."""
    state = {name: getattr(TierTotals(), name) for name in ("used_bytes", *_WORST)}
    return tuple(msgspec.structs.replace(one, **state) for one in tiers)


def sum_of_totals(ranks: Sequence[tuple[TierTotals, ...]]) -> tuple[TierTotals, ...]:
    """Of the same tiers on several hosts: parts of blocks, and the worst state."""
    return tuple(_sum(tiers) for tiers in zip(*(one for one in ranks if one), strict=True))


def _sum(tiers: Sequence[TierTotals]) -> TierTotals:
    numbers = {
        name: sum(getattr(one, name) for one in tiers)
        for name in TierTotals.__struct_fields__
        if name not in _WORST and name != "codec"
    }
    worst = {
        name: max((getattr(one, name) for one in tiers), key=order.index)
        for name, order in _WORST.items()
    }
    codec = sum_of_codecs([one.codec for one in tiers if one.codec is not None])
    return msgspec.structs.replace(TierTotals(), **numbers, **worst, codec=codec)
