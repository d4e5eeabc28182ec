"""BlockMover: copies blocks between the device and the tiers, beside the steps. Knows no torch.

Two threads: one stores, one loads. What is worth storing waits as a block number, not as a copy:
the device keeps cached blocks for long, so stores can wait for the engine's pauses. While steps
follow each other they get a small share of the time. A block that is about to be written to before
it was copied is not stored; so no store holds a block, or anyone, up.

A copy is valid only if its block was not given up until the copy was made: `give_up` comes before
the step that writes, and the copier looks after it has copied.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np

from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.promoter import Promoter
from novacron.kv_tiers.record import block_of, is_sound, record_bytes, seal
from novacron.kv_tiers.tier import Bytes, KVTier, Record
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    LoadBlock,
    LoadBlocks,
    LoadedBlocks,
    StoreBlock,
    TierKeys,
    TierTotals,
)
from novacron.records.step import SchedulerOutput

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 0.02  # without a step: the engine has nothing to do
_LONGEST_SLEEP_S: Final = 0.05  # then there may be a pause
_BLOCKS_AT_ONCE: Final = 8
_REST_S: Final = 10.0  # of a tier that could not do its work


class BlockMemory(Protocol):
    """The device's blocks as bytes."""

    @property
    def block_bytes(self) -> int: ...

    @property
    def block_size(self) -> int:
        """Tokens."""
        ...

    def read_block(self, block_id: int, into: Bytes) -> None:
        """Copy all that the block holds."""
        ...

    def write_block(self, block_id: int, data: Bytes) -> None:
        """Replace all that the block holds."""
        ...


@dataclass(eq=False, slots=True)
class _Store:
    """A block that waits to be stored. Given up: its content is about to change."""

    order: StoreBlock
    is_given_up: bool = False


def written_blocks(step: SchedulerOutput, block_size: int) -> Iterator[int]:
    """The blocks whose content a step replaces: of those that it hands out, all but the ones that
    a request starts with because they are filled already."""
    introduced = {new.request_id for new in step.new_requests}
    for part in step.scheduled:
        if part.new_block_ids:
            num_filled = part.start // block_size if part.request_id in introduced else 0
            yield from part.new_block_ids[num_filled:]


class BlockMover:
    """Moves what it is ordered to. `order`, `give_up` and `news` come from the thread of the steps
    and do not wait for a copy.

    `found` are the blocks that the tiers had from the beginning. `share` is that of one core's time
    that stores may take while steps follow each other; with 1 they do not wait for pauses. `pinned`
    is what the tiers look at, and gets what is ordered.
    """

    def __init__(
        self,
        memory: BlockMemory,
        tiers: Sequence[KVTier],
        identity: bytes,
        *,
        found: Sequence[TierKeys] = (),
        pinned: PinnedBlocks | None = None,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._tiers = tuple(tiers)
        self._identity = identity
        self._pinned = PinnedBlocks() if pinned is None else pinned
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._has_stores = threading.Condition(self._lock)
        self._has_loads = threading.Condition(self._lock)
        self._has_news = threading.Condition(self._lock)
        self._stores: deque[_Store] = deque()
        self._store_of_block: dict[int, _Store] = {}  # waiting, or being copied
        self._loads: deque[LoadBlocks] = deque()
        self._used: deque[BlockHash] = deque()
        self._totals = [TierTotals() for _ in tiers]
        self._rests_until_s = [0.0 for _ in tiers]
        self._num_stores_dropped = 0
        self._news: list[BlockNews] = [BlockNews(added=tuple(found))] if found else []
        self._is_computing = False
        self._last_step_s = -_PAUSE_S
        self._next_store_s = 0.0
        self._closing_at_s: float | None = None
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("store-blocks", self._run_stores), ("load-blocks", self._run_loads))
        ]
        for thread in self._threads:
            thread.start()
        size = record_bytes(memory.block_bytes)
        self._promoter = Promoter(self._tiers, identity, size, self._tell_promoted)

    # From the thread of the steps

    def order(self, orders: BlockOrders) -> None:
        self.give_up(block.block_id for load in orders.loads for block in load.blocks)
        with self._lock:
            was_idle = not self._stores and not self._used
            for order in orders.stores:
                store = _Store(order)
                self._stores.append(store)
                self._store_of_block[order.block_id] = store
            self._used.extend(orders.used)
            if was_idle:  # else it has set itself a time
                self._has_stores.notify()
            if orders.loads:
                self._loads.extend(orders.loads)
                self._has_loads.notify()
        for tier in self._tiers if orders.forgotten else ():
            tier.delete(orders.forgotten)
        if orders.pinned is not None:
            self._pinned.replace(orders.pinned)
        if orders.promotions:
            self._promoter.order(orders.promotions)
        if orders.dropped:  # whole segments, perhaps: nothing that a step should wait for
            thread = threading.Thread(
                target=self._drop, args=(orders.dropped,), name="drop-blocks", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def give_up(self, block_ids: Iterable[int]) -> None:
        """These blocks are about to be written to. To be called before that."""
        if not self._store_of_block:
            return
        with self._lock:
            for block_id in block_ids:
                store = self._store_of_block.pop(block_id, None)
                if store is not None:
                    store.is_given_up = True

    def begin_step(self, step: SchedulerOutput) -> None:
        """To be called before the step is computed."""
        self._is_computing = True
        if self._store_of_block:
            self.give_up(written_blocks(step, self._memory.block_size))

    def end_step(self) -> None:
        self._is_computing = False
        self._last_step_s = self._clock()

    def news(self, wait_s: float = 0.0) -> BlockNews | None:
        """What happened since the last call; waits up to so long for something to happen."""
        if not self._news and wait_s == 0.0:
            return None
        with self._lock:
            if not self._news:
                self._has_news.wait(wait_s)
            news, self._news = self._news, []
            if not news:
                return None
            return BlockNews(
                added=tuple(part for one in news for part in one.added),
                removed=tuple(part for one in news for part in one.removed),
                settled=tuple(key for one in news for key in one.settled),
                loaded=tuple(part for one in news for part in one.loaded),
                num_stores_dropped=self._num_stores_dropped,
                totals=tuple(self._totals),
                num_drops=sum(one.num_drops for one in news),
                promoted=tuple(key for one in news for key in one.promoted),
            )

    def close(self, patience_s: float = 0.0) -> None:
        """End both threads, and store for up to so long what still waits."""
        with self._lock:
            self._closing_at_s = self._clock() + patience_s
            self._has_stores.notify()
            self._has_loads.notify()
        self._promoter.close(patience_s + 10.0)
        for thread in self._threads:
            thread.join(patience_s + 10.0)
        for tier in self._tiers:
            tier.close()

    # Storing

    def _run_stores(self) -> None:
        buffers = self._buffers()
        while True:
            stores, used = self._next_stores()
            if not stores and not used:
                return
            started_s = self._clock()
            try:
                self._mark_used(used)
                self._store(stores, buffers)
            except Exception:
                logger.exception("Blocks could not be stored.")
                self._tell(BlockNews(settled=tuple(store.order.key for store in stores)))
            if self._share < 1:
                self._next_store_s = self._clock() + (self._clock() - started_s) / self._share

    def _next_stores(self) -> tuple[list[_Store], list[BlockHash]]:
        """Those to be done now, after waiting for their time, and what was used meanwhile. Neither:
        it is time to end."""
        with self._lock:
            while not self._is_time_to_store():
                if self._closing_at_s is not None:
                    return [], []
                self._has_stores.wait(self._patience_s())
            used = [self._used.popleft() for _ in range(len(self._used))]
            count = min(_BLOCKS_AT_ONCE, len(self._stores))
            return [self._stores.popleft() for _ in range(count)], used

    def _is_time_to_store(self) -> bool:
        if not self._stores and not self._used:
            return False
        now_s = self._clock()
        if self._closing_at_s is not None:
            return now_s < self._closing_at_s
        return self._is_paused() or now_s >= self._next_store_s

    def _is_paused(self) -> bool:
        return not self._is_computing and self._clock() - self._last_step_s >= _PAUSE_S

    def _patience_s(self) -> float | None:
        """How long to sleep before looking again; None: until something is ordered."""
        if not self._stores and not self._used:
            return None
        return min(_LONGEST_SLEEP_S, max(_PAUSE_S, self._next_store_s - self._clock()))

    def _store(self, stores: Sequence[_Store], buffers: Sequence[Bytes]) -> None:
        records: list[tuple[_Store, Bytes]] = []
        for store, buffer in zip(stores, buffers, strict=False):
            if not store.is_given_up:
                self._memory.read_block(store.order.block_id, block_of(buffer))
            with self._lock:
                if store.is_given_up:  # perhaps while it was copied
                    self._num_stores_dropped += 1
                    continue
                if self._store_of_block.get(store.order.block_id) is store:
                    del self._store_of_block[store.order.block_id]
            records.append((store, buffer))
        for store, buffer in records:
            seal(buffer, self._identity, store.order.key)
        added, removed = [], []
        for index, tier in enumerate(self._tiers):
            wanted = [
                Record(store.order.key, buffer, store.order.origin)
                for store, buffer in records
                if index in store.order.tiers
            ]
            if not wanted or self._clock() < self._rests_until_s[index]:
                continue
            try:
                put = tier.put(wanted)
            except Exception as error:
                self._see_error(index, error)
                continue
            added.append(TierKeys(index, put.stored))
            removed.append(TierKeys(index, put.dropped))
            self._count(index, num_stored=len(put.stored))
        settled = tuple(store.order.key for store in stores)
        self._tell(BlockNews(added=tuple(added), removed=tuple(removed), settled=settled))

    def _mark_used(self, used: Sequence[BlockHash]) -> None:
        for tier in self._tiers if used else ():
            tier.contains(used)

    def _drop(self, dropped: Sequence[TierKeys]) -> None:
        for change in dropped:
            try:
                self._tiers[change.tier].delete(change.keys)
            except Exception as error:
                self._see_error(change.tier, error)
            self._count(change.tier)
        self._tell(BlockNews(num_drops=len(dropped)))

    def _tell_promoted(self, news: BlockNews, target: int, num_stored: int) -> None:
        self._count(target, num_stored=num_stored)
        self._tell(news)

    # Loading

    def _run_loads(self) -> None:
        buffers = self._buffers()
        while True:
            with self._lock:
                while not self._loads and self._closing_at_s is None:
                    self._has_loads.wait()
                if self._closing_at_s is not None:
                    return
                load = self._loads.popleft()
            ok: list[bool] = []
            removed: list[TierKeys] = []
            try:
                for start in range(0, len(load.blocks), _BLOCKS_AT_ONCE):
                    part = load.blocks[start : start + _BLOCKS_AT_ONCE]
                    ok += self._load(part, buffers, removed)
            except Exception:  # somebody waits for these
                logger.exception("Blocks could not be loaded.")
                ok += [False] * (len(load.blocks) - len(ok))
            self._tell(
                BlockNews(removed=tuple(removed), loaded=(LoadedBlocks(load.load_id, tuple(ok)),))
            )

    def _load(
        self, blocks: Sequence[LoadBlock], buffers: Sequence[Bytes], removed: list[TierKeys]
    ) -> list[bool]:
        ok = [False] * len(blocks)
        for index in sorted({block.tier for block in blocks}):
            started_s = self._clock()
            places = [place for place, block in enumerate(blocks) if block.tier == index]
            keys = [blocks[place].key for place in places]
            found = self._get(index, keys, buffers)
            mismatches = []
            for place, key, is_there, buffer in zip(places, keys, found, buffers, strict=False):
                if is_there and is_sound(buffer, self._identity, key):
                    self._memory.write_block(blocks[place].block_id, block_of(buffer))
                    ok[place] = True
                elif is_there:
                    mismatches.append(key)
            if mismatches:
                self._tiers[index].delete(mismatches)
                logger.warning(
                    "%d blocks of a KV tier do not check and are dropped.", len(mismatches)
                )
            gone = tuple(blocks[place].key for place in places if not ok[place])
            if gone:
                removed.append(TierKeys(index, gone))
            num_loaded = len(keys) - len(gone)
            self._count(
                index,
                num_loaded=num_loaded,
                num_missing=len(gone) - len(mismatches),
                num_mismatches=len(mismatches),
                load_s=self._clock() - started_s,
                loaded_bytes=num_loaded * self._memory.block_bytes,
            )
        return ok

    def _get(self, index: int, keys: list[BlockHash], buffers: Sequence[Bytes]) -> list[bool]:
        try:
            return self._tiers[index].get(keys, buffers[: len(keys)])
        except Exception as error:
            self._see_error(index, error)
            return [False] * len(keys)

    # Both

    def _buffers(self) -> list[Bytes]:
        size = record_bytes(self._memory.block_bytes)
        return [np.empty(size, np.uint8) for _ in range(_BLOCKS_AT_ONCE)]

    def _see_error(self, index: int, error: Exception) -> None:
        """Whatever it is, requests can do without a tier."""
        self._rests_until_s[index] = self._clock() + _REST_S
        self._count(index, num_errors=1)
        is_ours = not isinstance(error, OSError)
        logger.warning(
            "A KV tier failed, and takes nothing for %.0f s: %r.", _REST_S, error, exc_info=is_ours
        )

    def _count(self, index: int, **more: float) -> None:
        with self._lock:
            totals = self._totals[index]
            sums = {name: getattr(totals, name) + value for name, value in more.items()}
            self._totals[index] = msgspec.structs.replace(
                totals, **sums, used_bytes=self._tiers[index].used_bytes
            )

    def _tell(self, news: BlockNews) -> None:
        with self._lock:
            self._news.append(news)
            self._has_news.notify()
