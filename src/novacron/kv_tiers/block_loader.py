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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.far_tiers import FarTiers
from novacron.kv_tiers.record import HEADER_BYTES, heads_of, record_bytes, sound_ones
from novacron.kv_tiers.store_pace import StorePace
from novacron.kv_tiers.tier import Bytes, KVTier, LendsBlocks, Loan, ReadsParts, Rows
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, LoadBlock, LoadBlocks, LoadedBlocks, TierKeys
from novacron.records.latency_counts import LatencyCounts

logger = logging.getLogger(__name__)

Bools = NDArray[np.bool_]
Numbers = NDArray[np.int64]

_FEWEST_AT_ONCE: Final = 16  # by each thread: a part costs as much as copying some blocks
_FEWEST_BYTES: Final = 16 * 2**20  # of what lies in memory: one thread has most of its speed
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


@dataclass(eq=False, slots=True)
class _Found:
    """Which of some records a tier has, their headers, and where their blocks lie."""

    is_there: Bools
    headers: Bytes  # [records][HEADER_BYTES]
    blocks: Rows
    loan: Loan | None = None


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
        pace: StorePace,
        *,
        num_threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._desk = desk
        self._far = far
        self._identity = identity
        self._copies = copies
        self._pace = pace
        self._clock = clock
        self._ways = [_way_of(tier) for tier in desk.tiers]
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
        parts = [part for order in orders for part in self._cut(order)]
        with self._has_parts:
            for part in parts:
                is_far = self._far.is_far(part.tier)
                (self._far_parts if is_far else self._near_parts).append(part)
                self._pace.begin_loads(not is_far)
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
            if not self._far.is_far(part.tier):
                self._pace.end_load()
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

    def _cut(self, order: LoadBlocks) -> list[_Part]:
        pieces: list[tuple[int, Sequence[int]]] = []
        for tier in sorted({block.tier for block in order.blocks}):
            of_tier = [place for place, block in enumerate(order.blocks) if block.tier == tier]
            size = self._blocks_at_once(tier, len(of_tier))
            pieces += [(tier, of_tier[n : n + size]) for n in range(0, len(of_tier), size)]
        load = _Load(order, len(pieces), [False] * len(order.blocks))
        return [_Part(load, tier, places) for tier, places in pieces]

    def _blocks_at_once(self, tier: int, num_blocks: int) -> int:
        """How many of an order for a tier are one part."""
        if self._far.is_far(tier):
            return FAR_BLOCKS_AT_ONCE
        share = -(-num_blocks // self._num_threads)
        if self._ways[tier] is LendsBlocks and self._memory.host_blocks is not None:
            return max(share, _FEWEST_BYTES // self._memory.block_bytes, 1)
        return min(max(share, _FEWEST_AT_ONCE), _MOST_AT_ONCE)

    def _load(self, part: _Part, records: Bytes) -> list[bool] | None:
        """Which blocks are there now; None if the tier could not do it."""
        started_s = self._clock()
        blocks, tier = part.blocks, self._desk.tiers[part.tier]
        keys = [block.key for block in blocks]
        ids = np.array([block.block_id for block in blocks], np.int64)
        own = self._memory.host_blocks
        copies = Rows.first(records, len(blocks))
        targets = _blocks_of(copies) if own is None else Rows(own, ids)
        try:
            found = self._find(part.tier, keys, copies, targets)
        except Exception as error:
            self._desk.see_error(part.tier, error)
            self._finish(ids, targets, np.zeros(len(blocks), np.bool_))
            return None
        ok = self._check(keys, found, targets)
        if found.loan is not None:
            found.is_there &= found.loan.is_intact()
            ok &= found.is_there
        self._finish(ids, targets, ok)
        mismatches = [keys[n] for n in np.flatnonzero(found.is_there & ~ok).tolist()]
        if mismatches:
            tier.delete(mismatches)
            logger.warning("%d blocks of a KV tier do not check and are dropped.", len(mismatches))
        num_loaded, load_s = int(ok.sum()), self._clock() - started_s
        self._desk.count(
            part.tier,
            num_loaded=num_loaded,
            num_missing=len(blocks) - num_loaded - len(mismatches),
            num_mismatches=len(mismatches),
            load_s=load_s,
            loads=LatencyCounts.of(load_s),
            loaded_bytes=num_loaded * self._memory.block_bytes,
        )
        return [bool(one) for one in ok]

    def _find(self, index: int, keys: Sequence[BlockHash], copies: Rows, targets: Rows) -> _Found:
        """What the tier has, where it lies with the fewest copies. Raises what the tier raises."""
        tier, way = self._desk.tiers[index], self._ways[index]
        if way is LendsBlocks:
            loan = cast(LendsBlocks, tier).lend(keys)
            table, numbers = loan.records
            headers = table[numbers, :HEADER_BYTES]
            return _Found(numbers >= 0, headers, _blocks_of(loan.records), loan)
        if way is ReadsParts:
            headers = np.empty((len(keys), HEADER_BYTES), np.uint8)
            into = [targets.table[number] for number in targets.numbers]
            is_there = cast(ReadsParts, tier).get_parts(keys, headers, into)
            return _Found(np.array(is_there, np.bool_), headers, targets)
        records = copies.table[: len(keys)]
        found = np.array(tier.get(keys, list(records)), np.bool_)
        return _Found(found, records[:, :HEADER_BYTES], _blocks_of(copies))

    def _check(self, keys: Sequence[BlockHash], found: _Found, targets: Rows) -> Bools:
        """Which of the blocks are what they should be, in their targets now."""
        ok = np.zeros(len(keys), np.bool_)
        rows = np.flatnonzero(found.is_there)
        if len(rows):
            there = [keys[row] for row in rows.tolist()]
            heads = heads_of(self._memory.block_bytes, self._identity, there)
            sums = self._copies.copy_and_sum(
                found.blocks.at(rows), targets.at(rows), heads, read_soon=False
            )
            ok[rows] = sound_ones(found.headers[rows], heads, sums)
        return ok

    def _finish(self, ids: Numbers, targets: Rows, ok: Bools) -> None:
        if self._memory.host_blocks is not None:
            self._memory.see_filled(ids[ok].tolist())
            if not ok.all():
                targets.table[ids[~ok]] = 0  # numbers of nobody may be NaN
            return
        for place in np.flatnonzero(ok).tolist():
            self._memory.write_block(int(ids[place]), targets.table[targets.numbers[place]])


def _blocks_of(records: Rows) -> Rows:
    return Rows(records.table[:, HEADER_BYTES:], records.numbers)


def _way_of(tier: KVTier) -> type | None:
    """The protocol by which blocks come with the fewest copies; None: KVTier's own."""
    return next((way for way in (LendsBlocks, ReadsParts) if isinstance(tier, way)), None)
