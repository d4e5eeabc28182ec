"""FakeTiers: KV tiers of a FakeExecutor. When something happens is up to the test.

Nothing moves until `work` is called, so a test decides what is stored or loaded before which step.
Content is what slots of the simulated memory hold; a wrong block is found by the request that reads
it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from novacron.kv_tiers.block_mover import written_blocks
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    BlockOrigin,
    LoadBlocks,
    LoadedBlocks,
    LookUp,
    PromoteBlocks,
    StoreBlock,
    TierKeys,
)
from novacron.records.output import TierSpec
from novacron.records.step import SchedulerOutput
from novacron.scheduler.fetch_choice import AlwaysFetch


@dataclass(slots=True)
class Slot:
    """What a KV slot holds. A request that failed leaves spoilt content behind."""

    position: int
    token_id: int
    writer_id: str
    is_spoilt: bool


Content = dict[int, Slot]  # by offset in a block


class FakeTiers:
    """`num_blocks` for each tier; the oldest blocks that are not pinned leave first. `is_lost`
    decides of every block that is to be loaded whether it has been lost. What those in `shared`
    have is told to whoever asks."""

    def __init__(
        self,
        *num_blocks: int,
        is_lost: Callable[[BlockHash], bool] = lambda key: False,
        kept: Iterable[OrderedDict[BlockHash, Content]] = (),
        shared: frozenset[int] = frozenset(),
        regions: Sequence[str] = (),
    ) -> None:
        self._regions = tuple(regions) or ("",) * len(num_blocks)
        self._shared = shared
        self._lookups: list[LookUp] = []
        self.num_lookups = 0
        self._sizes = num_blocks
        self._is_lost = is_lost
        self.kept = list(kept) or [OrderedDict() for _ in num_blocks]
        self.origins: dict[BlockHash, BlockOrigin] = {}
        self.pinned: frozenset[BlockHash] = frozenset()
        self._stores: dict[int, StoreBlock] = {}
        self._parked: set[int] = set()
        self._loads: list[LoadBlocks] = []
        self._news: list[BlockNews] = []
        self.num_given_up = self.num_parked = 0
        found = [
            TierKeys(tier, tuple(content))
            for tier, content in enumerate(self.kept)
            if tier not in shared
        ]
        self._news.append(BlockNews(added=tuple(found)))

    @property
    def specs(self) -> tuple[TierSpec, ...]:
        return tuple(
            TierSpec(
                kind="fake",
                capacity_bytes=size,
                is_shared=tier in self._shared,
                region=self._regions[tier],
            )
            for tier, size in enumerate(self._sizes)
        )

    def attach(self, memory: dict[tuple[int, int], Slot], block_size: int) -> None:
        self._memory, self._block_size = memory, block_size

    def order(self, orders: BlockOrders) -> None:
        for store in orders.stores:
            assert store.block_id not in self._stores, "a block with two contents"
            self._stores[store.block_id] = store
            self.origins[store.key] = store.origin
        self._parked.update(self._stores.keys() & orders.parked)
        for load in orders.loads:
            self._give_up(block.block_id for block in load.blocks)
        self._loads += orders.loads
        self._lookups += orders.lookups
        self.num_lookups += len(orders.lookups)
        for key in orders.forgotten:
            for content in self.kept:
                content.pop(key, None)
        for block_id in orders.given_up:
            self._parked.discard(block_id)
        self._give_up(orders.given_up)
        for change in orders.dropped:
            for key in change.keys:
                self.kept[change.tier].pop(key, None)
        if orders.dropped:
            self._news.append(BlockNews(num_drops=len(orders.dropped)))
        for order in orders.promotions:
            self._promote(order)
        if orders.pinned is not None:
            self.pinned = frozenset(orders.pinned)

    def begin_step(self, step: SchedulerOutput) -> None:
        self._give_up(written_blocks(step, self._block_size))

    def lose_blocks(self) -> None:
        """What was under way has failed."""
        self._parked.clear()
        self._give_up(list(self._stores))
        for load in self._loads:
            failed = LoadedBlocks(load.load_id, (False,) * len(load.blocks))
            self._news.append(BlockNews(loaded=(failed,)))
        self._loads.clear()

    def news(self) -> BlockNews | None:
        return self._news.pop(0) if self._news else None

    def blocks_of(self, scope: bytes) -> list[TierKeys]:
        """By what the scheduler told of them."""
        return [
            TierKeys(tier, tuple(key for key in kept if self.origins[key].scope == scope))
            for tier, kept in enumerate(self.kept)
        ]

    def work(self, num_stores: int | None = None, num_loads: int | None = None) -> None:
        """Do the oldest orders; None: all of them."""
        for block_id in list(self._stores)[:num_stores]:
            self._store(self._stores.pop(block_id))
        loads, self._loads = self._loads[:num_loads], self._loads[len(self._loads[:num_loads]) :]
        for load in loads:
            self._load(load)
        lookups, self._lookups = self._lookups, []
        for lookup in lookups:
            self._look_up(lookup)

    def _give_up(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            store = self._stores.pop(block_id, None)
            if block_id in self._parked and store is not None:
                self.num_parked += 1
                self._store(store)
            elif store is not None:
                self.num_given_up += 1
                self._news.append(BlockNews(settled=(store.key,)))

    def _store(self, store: StoreBlock) -> None:
        self._parked.discard(store.block_id)
        content = {
            offset: self._memory[store.block_id, offset] for offset in range(self._block_size)
        }
        added, removed = [], []
        for tier in store.tiers:
            self.kept[tier][store.key] = content
            added.append(TierKeys(tier, (store.key,)))
            if len(self.kept[tier]) > self._sizes[tier]:
                oldest = next(key for key in self.kept[tier] if key not in self.pinned)
                del self.kept[tier][oldest]
                removed.append(TierKeys(tier, (oldest,)))
        self._news.append(BlockNews(tuple(added), tuple(removed), (store.key,)))

    def _look_up(self, lookup: LookUp) -> None:
        kept = self.kept[lookup.tier]
        found = tuple(takewhile(kept.__contains__, lookup.keys))
        added = (TierKeys(lookup.tier, found),) if found else ()
        self._news.append(BlockNews(added=added, looked_up=(lookup.lookup_id,)))

    def _promote(self, order: PromoteBlocks) -> None:
        source, target = self.kept[order.source], self.kept[order.target]
        added = tuple(key for key in order.keys if key in source)
        target.update({key: source[key] for key in added})
        gone = [
            target.popitem(last=False)[0] for _ in range(len(target) - self._sizes[order.target])
        ]
        self._news.append(
            BlockNews(
                added=(TierKeys(order.target, added),),
                removed=(TierKeys(order.target, tuple(gone)),),
                promoted=order.keys,
            )
        )

    def _load(self, load: LoadBlocks) -> None:
        ok, removed = [], []
        for block in load.blocks:
            content = self.kept[block.tier].get(block.key)
            if content is None or self._is_lost(block.key):
                self.kept[block.tier].pop(block.key, None)
                removed.append(TierKeys(block.tier, (block.key,)))
                ok.append(False)
                continue
            for offset, slot in content.items():
                self._memory[block.block_id, offset] = slot
            ok.append(True)
        loaded = LoadedBlocks(load.load_id, tuple(ok))
        self._news.append(BlockNews(removed=tuple(removed), loaded=(loaded,)))


class FetchFirst(AlwaysFetch):
    """A FetchChoice that has so many blocks fetched, and the rest of a prefix computed."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks

    def cut(self, chain: Sequence[int | None], num_more_tokens: int) -> int:
        return min(self._num_blocks, len(chain))
