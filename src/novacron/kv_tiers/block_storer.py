"""BlockStorer: the thread that copies device blocks into the tiers, when it is time.

It asks for a core only where nobody else wants one (Linux: SCHED_IDLE), and for the interpreter's
lock a few times for many blocks: the thread of the steps and its helpers need both.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.guarded_tier import is_far
from novacron.kv_tiers.pending_stores import Note, PendingStores
from novacron.kv_tiers.record import HEADER_BYTES, heads_of, record_bytes, write_headers
from novacron.kv_tiers.store_pace import StorePace
from novacron.kv_tiers.tier import Bytes, Record
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, StoreBlock, TierKeys

logger = logging.getLogger(__name__)

_BLOCKS_AT_ONCE: Final = 8


class BlockStorer:
    """Owns its thread from `start` to `close`."""

    def __init__(
        self,
        memory: BlockMemory,
        desk: TierDesk,
        identity: bytes,
        copies: BlockCopies,
        pace: StorePace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._desk = desk
        self._identity = identity
        self._copies = copies
        self._pace = pace
        self._clock = clock
        self.pending = PendingStores()
        self._used: deque[BlockHash] = deque()
        self._has_work = threading.Condition()
        self._is_closing = False
        shape = (_BLOCKS_AT_ONCE, record_bytes(memory.block_bytes))
        self._records: Bytes = np.empty(shape, np.uint8)
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

    def close(self, patience_s: float) -> None:
        """End the thread, then store for up to so long what still waits: here, because the thread
        might not get a core for as long."""
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
        return not self.pending and not self._used

    def _run(self) -> None:
        _yield_to_others()
        while True:
            with self._has_work:
                while not self._is_closing and (self._has_nothing or not self._pace.is_time):
                    self._has_work.wait(None if self._has_nothing else self._pace.patience_s)
                if self._is_closing:
                    return
            self._pace.begin_turn()
            self._work()
            self._pace.end_turn()

    def _work(self) -> None:
        """Mark what was used, and store the next blocks."""
        used = [self._used.popleft() for _ in range(len(self._used))]
        notes = self.pending.take(_BLOCKS_AT_ONCE)
        try:
            self._mark_used(used)
            if notes:
                self._store(notes)
        except Exception:
            logger.exception("Blocks could not be stored.")
            self._desk.tell(BlockNews(settled=tuple(note.order.key for note in notes)))

    def _mark_used(self, used: Sequence[BlockHash]) -> None:
        for index, tier in enumerate(self._desk.tiers if used else ()):
            try:
                found = tier.contains(used)
            except Exception as error:
                self._desk.see_error(index, error)
                continue
            if is_far(tier):  # it may have lost some without telling
                gone = tuple(key for key, there in zip(used, found, strict=True) if not there)
                if gone:
                    self._desk.tell(BlockNews(removed=(TierKeys(index, gone),)))

    def _store(self, notes: Sequence[Note]) -> None:
        worth_copying = [note for note in notes if not note.is_given_up]
        row_of = {note: row for row, note in enumerate(worth_copying)}
        self._seal(worth_copying)
        whole = self.pending.confirm(notes)
        added, removed = [], []
        for index, tier in enumerate(self._desk.tiers):
            wanted = [
                Record(note.order.key, self._records[row_of[note]], note.order.origin)
                for note in whole
                if index in note.order.tiers
            ]
            if not wanted:
                continue
            try:
                put = tier.put(wanted)
            except Exception as error:
                self._desk.see_error(index, error)
                continue
            added.append(TierKeys(index, put.stored))
            removed.append(TierKeys(index, put.dropped))
            self._desk.count(index, num_stored=len(put.stored))
        settled = tuple(note.order.key for note in notes)
        self._desk.tell(BlockNews(added=tuple(added), removed=tuple(removed), settled=settled))

    def _seal(self, notes: Sequence[Note]) -> None:
        """Make the first records those of these blocks."""
        records = self._records[: len(notes)]
        heads = heads_of(
            self._memory.block_bytes, self._identity, [note.order.key for note in notes]
        )
        copies = [record[HEADER_BYTES:] for record in records]
        sources = list(self._sources((note.order.block_id for note in notes), copies))
        write_headers(records, heads, self._copies.copy_and_sum(sources, copies, heads))

    def _sources(self, block_ids: Iterable[int], copies: Iterable[Bytes]) -> Iterable[Bytes]:
        """The memory to copy from: the block's own, or the copy itself, filled by the device."""
        for block_id, copy in zip(block_ids, copies, strict=True):
            own = self._memory.host_block(block_id)
            if own is None:
                self._memory.read_block(block_id, copy)
            yield copy if own is None else own


def _yield_to_others() -> None:
    """Let this thread have a core only where nobody else wants it."""
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
