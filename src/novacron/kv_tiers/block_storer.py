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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.block_sealer import BlockSealer, Lender
from novacron.kv_tiers.eviction.pressure import Pressure
from novacron.kv_tiers.far_tiers import FarTiers
from novacron.kv_tiers.pending_stores import Note, PendingStores
from novacron.kv_tiers.record import record_bytes
from novacron.kv_tiers.store_pace import StorePace
from novacron.kv_tiers.tier import Bytes, LendsPlaces, Put, Record
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.kv_tiers.upkeep import Upkeep
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, StoreBlock, TierKeys
from novacron.records.latency_counts import LatencyCounts

logger = logging.getLogger(__name__)

_BYTES_AT_ONCE: Final = 16 * 2**20  # in pauses; a call costs as much as copying some blocks
_BLOCKS_AT_ONCE: Final = 16  # beside steps
_BREATH_S: Final = 0.0002  # for others to take the interpreter's lock before more is done
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
        self._sealer = BlockSealer(memory, identity, copies)
        self._pace = pace
        self._rescue_to = rescue_to
        self._upkeep = upkeep or Upkeep(clock=clock)
        self._clock = clock
        self.pending = PendingStores()
        self._used: deque[BlockHash] = deque()
        self._has_work = threading.Condition()
        self._is_closing = False
        size = record_bytes(memory.block_bytes)
        self._most_at_once = max(_BLOCKS_AT_ONCE, _BYTES_AT_ONCE // size)
        self._records: Bytes = np.empty((self._most_at_once, size), np.uint8)
        self._rescued: Bytes = np.empty((_BLOCKS_AT_ONCE, size), np.uint8)
        lenders = (
            Lender(tier, n) for n, tier in enumerate(desk.tiers) if isinstance(tier, LendsPlaces)
        )
        self._lender = next(lenders, None)
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
            if not self.pending:
                time.sleep(_BREATH_S)

    def _work(self) -> None:
        """Mark some of what was used, and store the next blocks."""
        used = [self._used.popleft() for _ in range(min(len(self._used), _MARKED_AT_ONCE))]
        notes = self.pending.take(self._most_at_once if self._pace.is_paused else _BLOCKS_AT_ONCE)
        try:
            if used:
                self._mark_used(used)
                self._upkeep.see_used(self, used)
            if notes:
                self._store(notes)
            self._upkeep.work(self, is_paused=self._pace.is_paused, is_busy=bool(notes))
            self._pace.is_slow = self._upkeep.stores_less
        except Exception:
            logger.exception("Blocks could not be stored.")
            self._desk.tell(BlockNews(settled=tuple(note.order.key for note in notes)))

    def _store(self, notes: Sequence[Note]) -> None:
        worth = [note for note in notes if not note.is_given_up]
        started_s = self._clock()
        sealed = self._sealer.seal([note.order for note in worth], self._records, self._lender)
        confirmed = set(self.pending.confirm(notes))
        whole = {n for n, note in enumerate(worth) if note in confirmed}
        puts: dict[int, Put] = {}
        if self._lender is not None:
            puts[self._lender.place] = put = sealed.settle(whole)
            self._count_put(self._lender.place, put, started_s)
        for index in range(len(self._desk.tiers)):
            if index not in puts:
                wanted = [n for n in whole if index in worth[n].order.tiers]
                puts[index] = self._put(index, [sealed.record(n) for n in wanted])
        sealed.release()
        self._tell(puts, settled=tuple(note.order.key for note in notes))

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
        lender = self._lender if self._lender and self._lender.place == index else None
        orders = [note.order for note in notes]
        started_s = self._clock()
        sealed = self._sealer.seal(orders, self._rescued, lender)
        if lender is None:
            put = self._put(index, [sealed.record(n) for n in range(len(orders))])
        else:
            put = sealed.settle(range(len(orders)))
            self._count_put(index, put, started_s)
        sealed.release()
        self._desk.count(index, num_parked=len(put.stored))
        self._tell({index: put})

    def put(self, place: int, records: Sequence[Record]) -> Put:
        put = self._put(place, records)
        self._tell({place: put})
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
        self._count_put(index, put, started_s)
        return put

    def _count_put(self, index: int, put: Put, started_s: float) -> None:
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

    def _tell(self, puts: Mapping[int, Put], settled: tuple[BlockHash, ...] = ()) -> None:
        self._desk.tell(
            BlockNews(
                added=tuple(TierKeys(n, put.stored) for n, put in puts.items() if put.stored),
                removed=tuple(TierKeys(n, put.dropped) for n, put in puts.items() if put.dropped),
                settled=settled,
            )
        )
