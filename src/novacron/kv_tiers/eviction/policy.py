"""EvictionPolicy: which block leaves a tier next. Pure: no clock, no I/O, no lock.

A tier tells its policy what comes, what is used and what goes, and asks it who leaves. Times are
seconds of any one clock and never go back. What no policy may do is kept in one place (chained.py);
what tells policies apart is an order of those blocks that may leave (LeafOrder).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin

MayGo = Callable[[BlockHash], bool]


@dataclass(eq=False, slots=True)
class Block:
    """What is known of a block that a tier holds."""

    key: BlockHash
    origin: BlockOrigin
    stored_s: float
    used_s: float
    num_uses: int = 0  # by requests that found it; being stored is none
    generation: int = 0  # how often its chain was taken up again before the block was made
    is_orphan: bool = False  # what it builds upon was not there when it came
    num_children: int = 0  # blocks here that build upon it
    group: int = 0  # these three belong to the orders: return times, LFU, ARC
    rank: float = 0.0
    was_again: bool = False


@dataclass(frozen=True, slots=True)
class EvictionCounts:
    """Since the policy's start. Regretted: asked for again before they were forgotten."""

    num_evicted: int = 0
    num_expired: int = 0
    num_regretted: int = 0


class EvictionPolicy(Protocol):
    """Calls come from one thread at a time. Each costs O(log n), or amortised O(1)."""

    @property
    def counts(self) -> EvictionCounts: ...

    def insert(self, key: BlockHash, origin: BlockOrigin, now_s: float) -> None:
        """The block is here now. It may be the next to leave: then it is not worth its place."""
        ...

    def touch(self, key: BlockHash, now_s: float) -> None:
        """A request found the block; one that left before counts as regretted."""
        ...

    def remove(self, key: BlockHash) -> None:
        """The block is gone for a reason of others."""
        ...

    def evict(self, now_s: float) -> BlockHash | None:
        """Choose a block and forget it. None: there is none that may leave."""
        ...

    def expired(self, now_s: float) -> list[BlockHash]:
        """Forget what need not stay even if there is room."""
        ...


class LeafOrder(Protocol):
    """The order in which blocks leave that may. A block is `open` from `enter` to `leave`."""

    def insert(self, block: Block, now_s: float) -> None:
        """A block is new. It is not open yet."""
        ...

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        """A block was used, `idle_s` after the last time. `num_uses` counts it already."""
        ...

    def enter(self, block: Block, now_s: float) -> None:
        """Nothing builds upon the block: it may be chosen; once more when it was used."""
        ...

    def leave(self, block: Block) -> None:
        """It may not be chosen any more."""
        ...

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        """The open block that shall leave first, among those for which `may_go` holds."""
        ...

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        """The block, which is not open any more, was evicted, or removed by others."""
        ...

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        """One that had gone was asked for, `idle_s` after its last use."""
        ...

    def forgotten(self, block: Block, now_s: float) -> None:
        """One that had gone is remembered no longer: nobody asked for it so far."""
        ...

    def expired(self, now_s: float) -> Block | None:
        """An open block that shall leave though there is room."""
        ...
