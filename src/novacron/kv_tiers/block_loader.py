"""BlockLoader: threads that bring blocks from the tiers into device blocks reserved for them.

An order is cut into parts, so that several threads serve one request. A record goes straight into
its block where the host can reach that, and is checked there: nobody finds a reserved block before
all is told, and what does not check is wiped. Tiers that are not of this machine have threads of
their own: only those wait for the network whose own blocks lie beyond it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.far_tiers import FarTiers
from novacron.kv_tiers.record import HEADER_BYTES, heads_of, record_bytes, sound_ones
from novacron.kv_tiers.tier import Bytes, LendsBlocks, ReadsParts, Rows
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, LoadBlock, LoadBlocks, LoadedBlocks, TierKeys
from novacron.records.latency_counts import LatencyCounts

logger = logging.getLogger(__name__)

_FEWEST_AT_ONCE: Final = 16  # by each thread: a part costs as much as copying some blocks
_MOST_AT_ONCE: Final = 64  # buffers of a thread, where blocks cannot come straight to their places
FAR_BLOCKS_AT_ONCE: Final = 32  # a trip for each
_FAR_THREADS: Final = 2  # while one checks what has come, the other has more sent


@dataclass(eq=False, slots=True)
class _Load:
    """An order that parts are still worked at."""

    order: LoadBlocks
    num_parts_left: int
    ok: list[bool]
    removed: list[TierKeys] = field(default_factory=list)
    until_s: float | None = None  # when to stop bringing blocks from afar


@dataclass(frozen=True, slots=True)
class _Part:
    """Some blocks of an order, all of one tier. `places` are those in the order."""

    load: _Load
    tier: int
    places: Sequence[int]

    @property
    def blocks(self) -> list[LoadBlock]:
        return [self.load.order.blocks[place] for place in self.places]


class BlockLoader:
    """Owns `num_threads` threads, and two for far tiers, from `start` to `close`."""

    def __init__(
        self,
        memory: BlockMemory,
        desk: TierDesk,
        far: FarTiers,
        identity: bytes,
        copies: BlockCopies,
        *,
        num_threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._desk = desk
        self._far = far
        self._identity = identity
        self._copies = copies
        self._clock = clock
        self._num_threads = num_threads
        self._near_parts: deque[_Part] = deque()
        self._far_parts: deque[_Part] = deque()
        self._has_parts = threading.Condition()
        self._is_closing = False
        self._threads = [
            threading.Thread(target=self._run, args=(parts,), name=name, daemon=True)
            for name, parts in (
                *((f"load-blocks-{index}", self._near_parts) for index in range(num_threads)),
                *(
                    (f"load-far-blocks-{index}", self._far_parts)
                    for index in range(_FAR_THREADS if far.has_any else 0)
                ),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def order(self, orders: Sequence[LoadBlocks]) -> None:
        """Have these loaded. Waits for none of them."""
        parts = [
            part for order in orders for part in _cut(order, self._far.is_far, self._num_threads)
        ]
        with self._has_parts:
            for part in parts:
                is_far = self._far.is_far(part.tier)
                (self._far_parts if is_far else self._near_parts).append(part)
            self._has_parts.notify_all()

    def close(self, patience_s: float) -> None:
        """End the threads. Loads that are not done are not told of."""
        with self._has_parts:
            self._is_closing = True
            self._has_parts.notify_all()
        for thread in self._threads:
            thread.join(patience_s)

    def _run(self, parts: deque[_Part]) -> None:
        shape = (_MOST_AT_ONCE, record_bytes(self._memory.block_bytes))
        records = np.empty(shape, np.uint8)  # takes memory only where it is written to
        while True:
            with self._has_parts:
                while not parts and not self._is_closing:
                    self._has_parts.wait()
                if self._is_closing:
                    return
                part = parts.popleft()
            ok: list[bool] | None = None
            try:
                if not self._is_too_late(part):
                    ok = self._load(part, records)
            except Exception:  # somebody waits for these
                logger.exception("Blocks could not be loaded.")
            self._end(part, ok)

    def _is_too_late(self, part: _Part) -> bool:
        if not self._far.is_far(part.tier):
            return False
        load = part.load
        if load.until_s is None:
            load.until_s = self._far.until_s(load.order)
        return self._clock() >= load.until_s

    def _end(self, part: _Part, ok: Sequence[bool] | None) -> None:
        """None: the tier was not asked, or failed, so its blocks may still be there."""
        load = part.load
        with self._has_parts:
            gone = []
            for place, is_there in zip(part.places, ok or (), strict=False):
                load.ok[place] = is_there
                if not is_there:
                    gone.append(load.order.blocks[place].key)
            if gone:
                load.removed.append(TierKeys(part.tier, tuple(gone)))
            load.num_parts_left -= 1
            if load.num_parts_left > 0:
                return
        loaded = LoadedBlocks(load.order.load_id, tuple(load.ok))
        self._desk.tell(BlockNews(removed=tuple(load.removed), loaded=(loaded,)))

    def _load(self, part: _Part, records: Bytes) -> list[bool] | None:
        """Which blocks are there now; None if the tier could not do it."""
        started_s = self._clock()
        blocks, tier = part.blocks, self._desk.tiers[part.tier]
        keys = [block.key for block in blocks]
        own = self._memory.host_blocks
        if own is None:
            targets = Rows.first(records[:, HEADER_BYTES:], len(blocks))
        else:
            targets = Rows(own, np.array([block.block_id for block in blocks]))
        loan = None
        try:
            if isinstance(tier, LendsBlocks):
                loan = tier.lend(keys)
                found: Sequence[bool] = (loan.records.numbers >= 0).tolist()
                lent = loan.records
                headers = lent.table[lent.numbers, :HEADER_BYTES]
                sources = Rows(lent.table[:, HEADER_BYTES:], lent.numbers)
            elif isinstance(tier, ReadsParts):
                headers, sources = np.empty((len(blocks), HEADER_BYTES), np.uint8), targets
                found = tier.get_parts(keys, headers, [targets.table[n] for n in targets.numbers])
            else:
                headers = records[: len(blocks), :HEADER_BYTES]
                sources = Rows.first(records[:, HEADER_BYTES:], len(blocks))
                found = tier.get(keys, list(records[: len(blocks)]))
        except Exception as error:
            self._desk.see_error(part.tier, error)
            self._finish(blocks, targets, [False] * len(blocks))
            return None
        ok = self._check(keys, found, headers, sources, targets)
        if loan is not None:
            found = loan.is_intact()
            ok = [good and there for good, there in zip(ok, found, strict=True)]
        self._finish(blocks, targets, ok)
        mismatches = [key for key, there, good in zip(keys, found, ok, strict=True) if there > good]
        if mismatches:
            tier.delete(mismatches)
            logger.warning("%d blocks of a KV tier do not check and are dropped.", len(mismatches))
        num_loaded, load_s = sum(ok), self._clock() - started_s
        self._desk.count(
            part.tier,
            num_loaded=num_loaded,
            num_missing=len(ok) - num_loaded - len(mismatches),
            num_mismatches=len(mismatches),
            load_s=load_s,
            loads=LatencyCounts.of(load_s),
            loaded_bytes=num_loaded * self._memory.block_bytes,
        )
        return ok

    def _check(
        self,
        keys: Sequence[BlockHash],
        found: Sequence[bool],
        headers: Bytes,
        sources: Rows,
        targets: Rows,
    ) -> list[bool]:
        """Which of the blocks are what they should be, in their targets now."""
        rows = [row for row, is_there in enumerate(found) if is_there]
        ok = [False] * len(keys)
        if rows:
            heads = heads_of(self._memory.block_bytes, self._identity, [keys[row] for row in rows])
            sums = self._copies.copy_and_sum(sources.at(rows), targets.at(rows), heads)
            for row, is_sound in zip(rows, sound_ones(headers[rows], heads, sums), strict=True):
                ok[row] = is_sound
        return ok

    def _finish(self, blocks: Sequence[LoadBlock], targets: Rows, ok: Sequence[bool]) -> None:
        if self._memory.host_blocks is not None:
            ids = [block.block_id for block in blocks]
            self._memory.see_filled(compress(ids, ok))
            bad = [block_id for block_id, is_sound in zip(ids, ok, strict=True) if not is_sound]
            if bad:
                targets.table[bad] = 0  # numbers of nobody may be NaN
            return
        for block, row, is_sound in zip(blocks, targets.numbers, ok, strict=True):
            if is_sound:
                self._memory.write_block(block.block_id, targets.table[row])


def _cut(order: LoadBlocks, is_far: Callable[[int], bool], num_threads: int) -> Iterator[_Part]:
    pieces: list[tuple[int, Sequence[int]]] = []
    for tier in sorted({block.tier for block in order.blocks}):
        of_tier = [place for place, block in enumerate(order.blocks) if block.tier == tier]
        at_once = FAR_BLOCKS_AT_ONCE
        if not is_far(tier):
            share = -(-len(of_tier) // num_threads)
            at_once = min(max(share, _FEWEST_AT_ONCE), _MOST_AT_ONCE)
        pieces += [(tier, of_tier[n : n + at_once]) for n in range(0, len(of_tier), at_once)]
    load = _Load(order, len(pieces), [False] * len(order.blocks))
    for tier, places in pieces:
        yield _Part(load, tier, places)
