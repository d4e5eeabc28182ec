"""BlockSealer: makes records (record.py) of device blocks, with one copy of each.

A record lies where a tier keeps it from the beginning, if a tier lends places; else in a buffer.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.record import HEADER_BYTES, heads_of, write_headers
from novacron.kv_tiers.tier import Bytes, LendsPlaces, Put, Record, Reservation, Rows
from novacron.records.block_moves import StoreBlock


class Lender(NamedTuple):
    """A tier that lends places, and its own place among all."""

    tier: LendsPlaces
    place: int


class SealedBlocks:
    """Records of some blocks: that of the n-th in a place of the lender's, or in the n-th buffer.
    To be released."""

    def __init__(
        self, orders: Sequence[StoreBlock], buffers: Bytes, lender: Lender | None = None
    ) -> None:
        self.orders = orders
        self._buffers = buffers
        self._lender = lender
        self._lent: NDArray[np.int64] = np.full(len(orders), -1)
        self._wanted: list[int] = []
        self._reserved: Reservation | None = None
        if lender is not None:
            wanted = [n for n, order in enumerate(orders) if lender.place in order.tiers]
            self._reserved = lender.tier.reserve([orders[n] for n in wanted])
            self._wanted = wanted
            self._lent[wanted] = self._reserved.places.numbers

    @property
    def parts(self) -> list[tuple[NDArray[np.int64], Rows]]:
        """Which orders' records lie together, and where. Those that only the lender was to have,
        and does not want, lie nowhere."""
        others: NDArray[np.int64] = np.flatnonzero(self._lent < 0)
        if self._lender is None or self._reserved is None:
            return [(others, Rows(self._buffers, others))]
        alone = (self._lender.place,)
        others = np.array([n for n in others if self.orders[n].tiers != alone], np.int64)
        lent = np.flatnonzero(self._lent >= 0)
        return [
            (others, Rows(self._buffers, others)),
            (lent, Rows(self._reserved.places.table, self._lent[lent])),
        ]

    def record(self, n: int) -> Record:
        order, number = self.orders[n], self._lent[n]
        if self._reserved is None or number < 0:
            return Record(order.key, self._buffers[n], order.origin)
        return Record(order.key, self._reserved.places.table[number], order.origin)

    def settle(self, whole: Container[int]) -> Put:
        """Have the lender count the records that are `whole`, by number, and give up the others."""
        if self._lender is None or self._reserved is None:
            return Put()
        return self._lender.tier.settle(self._reserved, [n in whole for n in self._wanted])

    def release(self) -> None:
        """Nobody reads the records any more."""
        if self._lender is not None and self._reserved is not None:
            self._lender.tier.release(self._reserved)


class BlockSealer:
    """From any thread."""

    def __init__(self, memory: BlockMemory, identity: bytes, copies: BlockCopies) -> None:
        self._memory = memory
        self._identity = identity
        self._copies = copies

    def seal(
        self, orders: Sequence[StoreBlock], buffers: Bytes, lender: Lender | None
    ) -> SealedBlocks:
        """`buffers` has room for all. Whoever calls settles and releases what is returned."""
        sealed = SealedBlocks(orders, buffers, lender)
        read_soon = any(len(order.tiers) > 1 for order in orders)
        try:
            for numbers, rows in sealed.parts:
                if len(numbers):
                    some = [orders[n] for n in numbers.tolist()]
                    self._fill(some, rows, read_soon=read_soon or rows.table is buffers)
        except BaseException:
            sealed.settle(())
            sealed.release()
            raise
        return sealed

    def _fill(self, orders: Sequence[StoreBlock], records: Rows, *, read_soon: bool) -> None:
        """`read_soon`: somebody reads the records next."""
        heads = heads_of(self._memory.block_bytes, self._identity, [order.key for order in orders])
        blocks = Rows(records.table[:, HEADER_BYTES:], records.numbers)
        sources = self._sources([order.block_id for order in orders], blocks)
        sums = self._copies.copy_and_sum(sources, blocks, heads, read_soon=read_soon)
        write_headers(records, heads, sums)

    def _sources(self, block_ids: Sequence[int], copies: Rows) -> Rows:
        """The memory to copy from: the blocks' own, or the copies, filled by the device."""
        own = self._memory.host_blocks
        if own is not None:
            return Rows(own, np.array(block_ids, np.int64))
        for block_id, row in zip(block_ids, copies.numbers, strict=True):
            self._memory.read_block(block_id, copies.table[row])
        return copies
