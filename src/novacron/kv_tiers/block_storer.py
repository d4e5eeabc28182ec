"""BlockStorer: the thread that copies device blocks into the tiers, when it is time.

It asks for the interpreter's lock a few times for many blocks, because the thread of the steps
needs it. For the same reason it has the priority of all others: a thread that holds the lock and
gets no core holds up everybody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.eviction.pressure import Pressure
from novacron.kv_tiers.far_tiers import FarTiers
from novacron.kv_tiers.pending_stores import Note, PendingStores
from novacron.kv_tiers.record import HEADER_BYTES, heads_of, record_bytes, write_headers
from novacron.kv_tiers.store_pace import StorePace
from novacron.kv_tiers.tier import Bytes, Put, Record, Rows
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.kv_tiers.upkeep import Upkeep
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, StoreBlock, TierKeys
from novacron.records.latency_counts import LatencyCounts

logger = logging.getLogger(__name__)

_BLOCKS_AT_ONCE: Final = 16
_MARKED_AT_ONCE: Final = 32  # this takes the interpreter's lock, and the next request needs it


class BlockStorer:
    """Owns its thread from `start` to `close`.

    Blocks of interrupted work that are about to be written to do not wait for it: `rescue` puts
    them into the tier `rescue_to`, by its place; None: nowhere. `upkeep` is done between stores.
    Implements its Desk.
    """

    def __init__(
        self,
        memory: BlockMemory,
        desk: TierDesk,
        far: FarTiers,
        identity: bytes,
        copies: BlockCopies,
        pace: StorePace,
        rescue_to: int | None = None,
        upkeep: Upkeep | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._desk = desk
        self._far = far
        self._identity = identity
        self._copies = copies
        self._pace = pace
        self._rescue_to = rescue_to
        self._upkeep = upkeep or Upkeep(clock=clock)
        self._clock = clock
        self.pending = PendingStores()
        self._used: deque[BlockHash] = deque()
        self._has_work = threading.Condition()
        self._is_closing = False
        shape = (_BLOCKS_AT_ONCE, record_bytes(memory.block_bytes))
        self._records: Bytes = np.empty(shape, np.uint8)
        self._rescued: Bytes = np.empty(shape, np.uint8)
        self._thread = threading.Thread(target=self._run, name="store-blocks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def order(self, stores: Sequence[StoreBlock], used: Sequence[BlockHash]) -> None:
        """Note what is to be stored, and what was used. Waits for no copy."""
        if not (stores or used):
            return
        was_idle = self._has_nothing
        self.pending.add(stores)
        self._used.extend(used)
        if was_idle:  # else it has set itself a time
            with self._has_work:
                self._has_work.notify()

    def give_up(self, block_ids: Iterable[int]) -> None:
        """These blocks are about to be written to. To be called before that, by the thread of the
        steps."""
        notes = self.pending.give_up(block_ids)
        for start in range(0, len(notes), _BLOCKS_AT_ONCE):
            self._rescue(notes[start : start + _BLOCKS_AT_ONCE])

    def close(self, patience_s: float) -> None:
        """End the thread, then store for up to so long what still waits."""
        end_s = self._clock() + patience_s
        with self._has_work:
            self._is_closing = True
            self._has_work.notify()
        self._thread.join(patience_s + 10.0)
        if self._thread.is_alive():
            return
        while not self._has_nothing and self._clock() < end_s:
            self._work()

    @property
    def _has_nothing(self) -> bool:
        return not self.pending and not self._used and self._upkeep.is_idle

    @property
    def _patience_s(self) -> float | None:
        return self._upkeep.patience_s if self._has_nothing else self._pace.patience_s

    def _run(self) -> None:
        while True:
            with self._has_work:
                while not self._is_closing and (self._has_nothing or not self._pace.is_time):
                    self._has_work.wait(self._patience_s)
                if self._is_closing:
                    return
            self._pace.begin_turn()
            self._work()
            self._pace.end_turn()

    def _work(self) -> None:
        """Mark some of what was used, and store the next blocks."""
        used = [self._used.popleft() for _ in range(min(len(self._used), _MARKED_AT_ONCE))]
        notes = self.pending.take(_BLOCKS_AT_ONCE)
        try:
            if used:
                self._mark_used(used)
                self._upkeep.see_used(self, used)
            if notes:
                self._store(notes)
            self._upkeep.work(self, is_paused=self._pace.is_paused)
            self._pace.is_slow = self._upkeep.stores_less
        except Exception:
            logger.exception("Blocks could not be stored.")
            self._desk.tell(BlockNews(settled=tuple(note.order.key for note in notes)))

    def _store(self, notes: Sequence[Note]) -> None:
        worth_copying = [note for note in notes if not note.is_given_up]
        row_of = {note: row for row, note in enumerate(worth_copying)}
        self._seal(worth_copying, self._records)
        whole = self.pending.confirm(notes)
        news = []
        for index in range(len(self._desk.tiers)):
            wanted = [
                Record(note.order.key, self._records[row_of[note]], note.order.origin)
                for note in whole
                if index in note.order.tiers
            ]
            put = self._put(index, wanted)
            news.append((TierKeys(index, put.stored), TierKeys(index, put.dropped)))
        self._desk.tell(
            BlockNews(
                added=tuple(added for added, _ in news if added.keys),
                removed=tuple(removed for _, removed in news if removed.keys),
                settled=tuple(note.order.key for note in notes),
            )
        )

    def _mark_used(self, used: Sequence[BlockHash]) -> None:
        for index, tier in enumerate(self._desk.tiers):
            try:
                found = tier.contains(used)
            except Exception as error:
                self._desk.see_error(index, error)
                continue
            if not self._far.is_far(index):
                continue  # it tells what it drops
            gone = tuple(key for key, is_there in zip(used, found, strict=True) if not is_there)
            if gone:
                self._desk.tell(BlockNews(removed=(TierKeys(index, gone),)))

    def _rescue(self, notes: Sequence[Note]) -> None:
        """Store blocks whose notes were given up. Whoever takes these notes up settles them."""
        index = self._rescue_to
        if index is None:
            return
        self._seal(notes, self._rescued)
        put = self._put(
            index,
            [
                Record(note.order.key, record, note.order.origin)
                for note, record in zip(notes, self._rescued, strict=False)
            ],
        )
        self._desk.count(index, num_parked=len(put.stored))
        self._desk.tell(
            BlockNews(added=(TierKeys(index, put.stored),), removed=(TierKeys(index, put.dropped),))
        )

    def put(self, place: int, records: Sequence[Record]) -> Put:
        put = self._put(place, records)
        self._desk.tell(
            BlockNews(added=(TierKeys(place, put.stored),), removed=(TierKeys(place, put.dropped),))
        )
        return put

    def has(self, place: int, keys: Sequence[BlockHash]) -> Sequence[bool]:
        """All, if the tier cannot be asked: then nothing can be put there either."""
        try:
            return self._desk.tiers[place].contains(keys)
        except Exception as error:
            self._desk.see_error(place, error)
            return [True] * len(keys)

    def tell_left(self, place: int, keys: Sequence[BlockHash]) -> None:
        if keys:
            self._desk.count(place, num_evicted=len(keys))
            self._desk.tell(BlockNews(removed=(TierKeys(place, tuple(keys)),)))

    def tell_pressure(self, place: int, level: Pressure) -> None:
        self._desk.set_pressure(place, level)

    def count(self, place: int, **more: int) -> None:
        self._desk.count(place, **more)

    def get(self, place: int, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> Sequence[bool]:
        try:
            return self._desk.tiers[place].get(keys, into)
        except Exception as error:
            self._desk.see_error(place, error)
            return [False] * len(keys)

    def _put(self, index: int, records: Sequence[Record]) -> Put:
        if not records:
            return Put()
        started_s = self._clock()
        try:
            put = self._desk.tiers[index].put(records)
        except Exception as error:
            self._desk.see_error(index, error)
            return Put()
        store_s = self._clock() - started_s
        self._desk.count(
            index,
            num_stored=len(put.stored),
            stored_bytes=len(put.stored) * self._memory.block_bytes,
            store_s=store_s,
            stores=LatencyCounts.of(store_s),
            num_evicted=len(put.dropped),
            num_regretted=put.num_regretted,
        )
        return put

    def _seal(self, notes: Sequence[Note], into: Bytes) -> None:
        """Make the first records those of these blocks."""
        records = into[: len(notes)]
        heads = heads_of(
            self._memory.block_bytes, self._identity, [note.order.key for note in notes]
        )
        copies = Rows.first(records[:, HEADER_BYTES:], len(notes))
        sources = self._sources([note.order.block_id for note in notes], copies)
        write_headers(records, heads, self._copies.copy_and_sum(sources, copies, heads))

    def _sources(self, block_ids: Sequence[int], copies: Rows) -> Rows:
        """The memory to copy from: the blocks' own, or the copies, filled by the device."""
        own = self._memory.host_blocks
        if own is not None:
            return Rows(own, np.array(block_ids, np.int64))
        for block_id, row in zip(block_ids, copies.numbers, strict=True):
            self._memory.read_block(block_id, copies.table[row])
        return copies
