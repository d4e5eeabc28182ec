"""BlockMover: copies blocks between the device and the tiers, beside the steps. Knows no torch.

One thread stores, others load. What is worth storing waits as a block number, not as a copy: the
device keeps cached blocks for long, so stores can wait for the engine's pauses. While steps follow
each other they get a small share of the time. A block that is about to be written to before it was
copied is not stored; so no store holds a block, or anyone, up. Only blocks of interrupted work are
stored then at the latest: copying them takes much less than computing them again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.block_loader import BlockLoader
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.block_storer import BlockStorer
from novacron.kv_tiers.far_tiers import FarTiers
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.promoter import Promoter
from novacron.kv_tiers.record import record_bytes
from novacron.kv_tiers.store_pace import StorePace
from novacron.kv_tiers.tier import KnowsScopes, KVTier
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.kv_tiers.upkeep import Upkeep
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.latency_counts import LatencyCounts
from novacron.records.step import SchedulerOutput

_LOADERS_PATIENCE_S: Final = 10.0


def written_blocks(step: SchedulerOutput, block_size: int) -> Iterator[int]:
    """The blocks whose content a step replaces: of those that it hands out, all but the ones that
    a request starts with because they are filled already."""
    parts = [part for part in step.scheduled if part.new_block_ids]
    introduced = {new.request_id for new in step.new_requests} if parts else set()
    for part in parts:
        num_filled = part.start // block_size if part.request_id in introduced else 0
        yield from part.new_block_ids[num_filled:]


class BlockMover:
    """Moves what it is ordered to. All calls come from the thread of the steps. None but
    `close` waits for a copy, unless of parked blocks.

    `found` are the blocks that the tiers had from the beginning. Parked blocks go to the tier
    `park_in` at need, which must be quick, and let two threads put. `share` is that of one core's
    time that stores may take while steps follow each other; with 1 they do not wait for pauses.
    `pinned` is what the tiers look at, and gets what is ordered. `upkeep` is done between stores.
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
        park_in: int | None = None,
        upkeep: Upkeep | None = None,
        copies: BlockCopies | None = None,
        num_loaders: int = 2,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        copies = copies or PlainCopies()
        self._block_size = memory.block_size
        self._desk = TierDesk(tiers, found)
        self._far = FarTiers(tiers, self._desk.tell, clock, self._see_lookup)
        self._pace = StorePace(share, clock, cpu_clock)
        self._storer = BlockStorer(
            memory, self._desk, self._far, identity, copies, self._pace, park_in, upkeep, clock
        )
        self._loader = BlockLoader(
            memory, self._desk, self._far, identity, copies, self._pace,
            num_threads=num_loaders, clock=clock,
        )  # fmt: skip
        self._pending = self._storer.pending
        self._can_park = park_in is not None
        self._pinned = PinnedBlocks() if pinned is None else pinned
        self._droppers: list[threading.Thread] = []
        self._promoter = Promoter(
            self._desk.tiers,
            identity,
            record_bytes(memory.block_bytes),
            self._tell_promoted,
            lambda: upkeep is not None and upkeep.holds_prefetch,
        )
        self._storer.start()
        self._loader.start()

    def order(self, orders: BlockOrders) -> None:
        self._storer.order(orders.stores, orders.used)
        if self._can_park:
            self._pending.park(orders.parked)
        if orders.loads:
            self.give_up(block.block_id for load in orders.loads for block in load.blocks)
            self._loader.order(orders.loads)
        if orders.given_up:
            self._pending.give_up(orders.given_up)
        self._far.look_up(orders.lookups)
        for tier in self._desk.tiers if orders.forgotten else ():
            tier.delete(orders.forgotten)
        if orders.pinned is not None:
            self._pinned.replace(orders.pinned)
        if orders.promotions:
            self._promoter.order(orders.promotions)
        if orders.dropped:  # whole segments, perhaps: nothing that a step should wait for
            thread = threading.Thread(
                target=self._drop, args=(orders.dropped,), name="drop-blocks", daemon=True
            )
            self._droppers = [one for one in self._droppers if one.is_alive()]
            self._droppers.append(thread)
            thread.start()

    def give_up(self, block_ids: Iterable[int]) -> None:
        """These blocks are about to be written to. To be called before that."""
        self._storer.give_up(block_ids)

    def begin_step(self, step: SchedulerOutput | None) -> None:
        """To be called before the step is computed. None: who calls has said itself what is given
        up."""
        self._pace.begin_step()
        if step is not None and self._pending.has_blocks:
            written = list(written_blocks(step, self._block_size))
            if written:
                self._storer.give_up(written)

    def end_step(self) -> None:
        self._pace.end_step()

    def forget_steps(self) -> None:
        """Those that have begun will not end."""
        self._pace.forget_steps()

    def news(self, wait_s: float = 0.0) -> BlockNews | None:
        """What happened since the last call; waits up to so long for something to happen."""
        return self._desk.news(wait_s, lambda: self._pending.num_dropped)

    def blocks_of(self, scope: bytes) -> list[TierKeys]:
        """All blocks of a scope that tiers have, as they themselves know. Raises OSError if one of
        them cannot tell; that may take long."""
        return [
            TierKeys(place, tuple(tier.keys_of(scope)))
            for place, tier in enumerate(self._desk.tiers)
            if isinstance(tier, KnowsScopes)
        ]

    def close(self, patience_s: float = 0.0) -> None:
        """End all threads, and store for up to so long what still waits."""
        self._promoter.close(_LOADERS_PATIENCE_S)
        self._loader.close(_LOADERS_PATIENCE_S)
        self._storer.close(patience_s)
        self._far.close()
        for thread in self._droppers:
            thread.join(_LOADERS_PATIENCE_S)
        self._desk.close()

    def _drop(self, dropped: Sequence[TierKeys]) -> None:
        for change in dropped:
            try:
                self._desk.tiers[change.tier].delete(change.keys)
            except Exception as error:
                self._desk.see_error(change.tier, error)
            self._desk.count(change.tier)
        self._desk.tell(BlockNews(num_drops=len(dropped)))

    def _see_lookup(self, tier: int, seconds: float) -> None:
        self._desk.count(tier, lookups=LatencyCounts.of(seconds))

    def _tell_promoted(self, news: BlockNews, target: int, num_stored: int) -> None:
        self._desk.count(target, num_stored=num_stored)
        self._desk.tell(news)
