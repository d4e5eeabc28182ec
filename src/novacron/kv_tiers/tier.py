"""KVTier: a place that keeps records of blocks under their hashes. Nothing else is asked of one."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from novacron.records.block import BlockHash
from novacron.records.block_moves import NO_ORIGIN, BlockOrigin

Bytes = NDArray[np.uint8]


class Rows(NamedTuple):
    """Some rows of a table of bytes, by number: many pieces of memory without an object of each."""

    table: Bytes  # [rows][bytes], no gaps within a row
    numbers: NDArray[np.int64]

    @classmethod
    def first(cls, table: Bytes, count: int) -> Self:
        return cls(table, np.arange(count))

    def at(self, places: Sequence[int] | NDArray[np.int64]) -> Rows:
        """Those of the numbers that stand at these places."""
        return Rows(self.table, self.numbers[places])


class NewBlock(Protocol):
    """A block that a tier may want."""

    @property
    def key(self) -> BlockHash: ...
    @property
    def origin(self) -> BlockOrigin: ...


class Record(NamedTuple):
    """A sealed record (record.py) on its way to a tier, which copies what it keeps."""

    key: BlockHash
    data: Bytes
    origin: BlockOrigin = NO_ORIGIN


@dataclass(frozen=True, slots=True)
class Put:
    """What a tier took, and what it dropped to make room."""

    stored: tuple[BlockHash, ...] = ()
    dropped: tuple[BlockHash, ...] = ()
    num_regretted: int = 0  # asked for since the last time, after they had been dropped

    @classmethod
    def of(
        cls, stored: Iterable[BlockHash], dropped: Iterable[BlockHash], held: Container[BlockHash]
    ) -> Self:
        """What remains when all is done: later records may take the room of earlier ones."""
        return cls(
            tuple(key for key in stored if key in held),
            tuple(key for key in dropped if key not in held),
        )


class KVTier(Protocol):
    """Keeps records, all of one size, within a number of bytes that it never exceeds.

    A record is opaque: whoever reads it checks it (record.py). To lose records is allowed, to hand
    out others is not a tier's business to notice. Calls come from two threads, one that puts and
    one that gets. A tier that cannot do its work raises OSError; nothing is worse than lost then.
    """

    @property
    def used_bytes(self) -> int: ...

    def put(self, records: Sequence[Record]) -> Put:
        """Keep copies of these records; drops others at need, but no pinned ones. Some may not
        be taken."""
        ...

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        """Fill the buffers with the records, one for each key; False where there is none."""
        ...

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        """Which of them are there. They count as used now: requests found them here or above."""
        ...

    def delete(self, keys: Iterable[BlockHash]) -> None:
        """Drop these, where they are there."""
        ...

    def close(self) -> None:
        """Let go of memory and files. What a tier keeps beyond the process stays."""
        ...


@runtime_checkable
class KnowsScopes(Protocol):
    """A tier that can tell whose its records are."""

    def keys_of(self, scope: bytes) -> Sequence[BlockHash]:
        """All records of a scope (BlockOrigin.scope), which is not empty."""
        ...


@runtime_checkable
class ReadsParts(Protocol):
    """A tier that can bring headers and blocks to different places, so that a block needs no copy
    on its way to the device."""

    def get_parts(
        self, keys: Sequence[BlockHash], headers: Bytes, blocks: Sequence[Bytes]
    ) -> list[bool]:
        """As `get`, but the header goes to [records][HEADER_BYTES] and the rest to `blocks`. Where
        False is returned, they may hold anything."""
        ...


@dataclass(frozen=True, slots=True)
class Loan:
    """Where records lie in a tier's memory, -1 for each that is not there. Whoever has copied them
    asks `is_intact` which of them were there until then."""

    records: Rows
    is_intact: Callable[[], list[bool]]


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where records may be written to in a tier's memory; -1: the block is there, or not wanted.
    `dropped` left for them."""

    keys: tuple[BlockHash, ...]
    places: Rows
    dropped: tuple[BlockHash, ...]


@runtime_checkable
class LendsBlocks(Protocol):
    """A tier whose records lie in the host's memory, so that a block is copied once on its way to
    the device."""

    def lend(self, keys: Sequence[BlockHash]) -> Loan: ...


@runtime_checkable
class LendsPlaces(Protocol):
    """A tier whose records lie in the host's memory, so that a block is copied once on its way from
    the device: whoever stores writes them there himself. May be called from two threads."""

    def reserve(self, blocks: Sequence[NewBlock]) -> Reservation:
        """Places for those that are new and worth it; others leave for them."""
        ...

    def settle(self, reservation: Reservation, is_written: Sequence[bool]) -> Put:
        """The reserved places hold whole records now, or never will. Their bytes stay where they
        are until `release`."""
        ...

    def release(self, reservation: Reservation) -> None: ...


@runtime_checkable
class SharedTier(KVTier, Protocol):
    """A tier into which others put blocks while we run, so it is asked rather than remembered.

    What it has `put` it may lose without telling. `contains(())` reaches out to it all the same:
    it raises OSError if it cannot be reached.
    """

    def count_leading(self, keys: Sequence[BlockHash]) -> int:
        """How many blocks of this chain are there, up to the first that is not. Marks nothing."""
        ...


@runtime_checkable
class ListedTier(KVTier, Protocol):
    """A tier into which others put blocks while we run, which has to be listed to see them."""

    @property
    def keys(self) -> tuple[BlockHash, ...]:
        """All that it holds, as far as is known."""
        ...

    def refresh(self) -> None:
        """Look again. May take long."""
        ...
