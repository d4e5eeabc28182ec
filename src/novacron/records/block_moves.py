"""What crosses between the scheduler and the ranks about KV tiers. Frozen values; no torch.

A tier is named by its place in `ModelSpec.kv_tiers`, fastest first. Blocks are named by their hash
wherever they lie, and by their number where they lie on the device. Those that there is one of for
each block are kept from the garbage collector, as they cannot be part of a cycle.
"""

from __future__ import annotations

from typing import Final

import msgspec

from novacron.records.block import BlockHash
from novacron.records.codec_totals import CodecTotals
from novacron.records.latency_counts import LatencyCounts


class BlockOrigin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a block stands among others: what a tier may know of it when it chooses what to drop.

    `depth` blocks lie before it in its chain, `parent` right before it (None: it is the first).
    `session` and `scope` are digests of who made it; empty: not known.
    """

    parent: BlockHash | None
    depth: int
    session: bytes = b""
    scope: bytes = b""


NO_ORIGIN: Final = BlockOrigin(None, 0)


class StoreBlock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Keep what the device block holds in these tiers, unless the block is written to before."""

    key: BlockHash
    block_id: int
    tiers: tuple[int, ...]
    origin: BlockOrigin = NO_ORIGIN


class LoadBlock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bring a block from a tier into the device block, which is reserved for it."""

    key: BlockHash
    block_id: int
    tier: int


class LoadBlocks(msgspec.Struct, frozen=True, array_like=True):
    """Blocks that belong together, in the order of their prefix."""

    load_id: int
    blocks: tuple[LoadBlock, ...]


class LookUp(msgspec.Struct, frozen=True, array_like=True):
    """Ask a shared tier how much of this chain it has."""

    lookup_id: int
    tier: int
    keys: tuple[BlockHash, ...]


class TierKeys(msgspec.Struct, frozen=True, array_like=True):
    """Blocks in, or no longer in, a tier."""

    tier: int
    keys: tuple[BlockHash, ...]


class PromoteBlocks(msgspec.Struct, frozen=True, array_like=True):
    """Copy blocks from a tier into a faster one; nobody waits for them."""

    source: int
    target: int
    keys: tuple[BlockHash, ...]


class BlockOrders(msgspec.Struct, frozen=True, array_like=True):
    """What ranks shall do beside the steps. `used` were needed just now, the first the least.
    `parked` are device blocks of interrupted work: one that waits to be stored is stored before it
    is written to. `dropped` are not wanted any more in one tier. `pinned` are all that tiers must
    not drop by themselves from now on; None: the same as before. What the device blocks `given_up`
    hold shall not be stored any more."""

    stores: tuple[StoreBlock, ...] = ()
    loads: tuple[LoadBlocks, ...] = ()
    used: tuple[BlockHash, ...] = ()
    forgotten: tuple[BlockHash, ...] = ()
    parked: tuple[int, ...] = ()
    lookups: tuple[LookUp, ...] = ()
    dropped: tuple[TierKeys, ...] = ()
    pinned: tuple[BlockHash, ...] | None = None
    promotions: tuple[PromoteBlocks, ...] = ()
    given_up: tuple[int, ...] = ()


class LoadedBlocks(msgspec.Struct, frozen=True, array_like=True):
    """The end of a LoadBlocks: for each of its blocks, whether the device holds it now."""

    load_id: int
    ok: tuple[bool, ...]


class TierTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank has done with one tier since its start, and how full it is."""

    used_bytes: int = 0
    num_stored: int = 0
    num_parked: int = 0  # among them, while a step waited
    num_demoted: int = 0  # among them, because they left a faster tier
    num_warmed: int = 0  # among them, brought from disk after the start
    num_warm_used: int = 0  # of these, found by a request
    num_loaded: int = 0
    num_missing: int = 0  # were not there any more
    num_mismatches: int = 0  # were not what they should be
    num_errors: int = 0  # of the tier itself: a full or broken disk
    num_evicted: int = 0  # left to make room
    num_regretted: int = 0  # of these, asked for again not long after
    load_s: float = 0.0
    loaded_bytes: int = 0
    store_s: float = 0.0
    stored_bytes: int = 0
    lookups: LatencyCounts = LatencyCounts()  # of what it is asked to find, on another machine
    loads: LatencyCounts = LatencyCounts()  # each of some blocks of one request
    stores: LatencyCounts = LatencyCounts()
    load_breaker: str = "closed"  # open: it failed, and nothing is asked of it for a while
    store_breaker: str = "closed"
    pressure: str = "low"  # how scarce what it is made of is: see kv_tiers/eviction/pressure.py
    codec: CodecTotals | None = None  # of a tier that compresses


class BlockNews(msgspec.Struct, frozen=True, array_like=True):
    """What came of orders. A block that was to be stored is told of once in `settled`."""

    added: tuple[TierKeys, ...] = ()
    removed: tuple[TierKeys, ...] = ()
    settled: tuple[BlockHash, ...] = ()
    loaded: tuple[LoadedBlocks, ...] = ()
    num_stores_dropped: int = 0  # in all: their blocks were needed for something else before
    totals: tuple[TierTotals, ...] = ()
    looked_up: tuple[int, ...] = ()  # lookups that ended; what they found is in `added`
    num_drops: int = 0  # of BlockOrders.dropped that are done
    promoted: tuple[BlockHash, ...] = ()  # or could not be
