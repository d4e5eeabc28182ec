"""BlockMover: copies blocks between the device and the tiers, beside the steps. Knows no torch.

One thread stores, others load, and one more loads from other machines, so that a request waits for
the network only where its own blocks lie beyond it. What is worth storing waits as a block number,
not as a copy: the device keeps cached blocks for long, so stores can wait for the engine's pauses.
While steps follow each other they get a small share of the time. A block that is about to be
written to before it was copied is not stored; so no store holds a block, or anyone, up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.block_loader import BlockLoader
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.block_storer import BlockStorer
from novacron.kv_tiers.far_tiers import FarTiers
from novacron.kv_tiers.store_pace import StorePace
from novacron.kv_tiers.tier import KVTier
from novacron.kv_tiers.tier_desk import TierDesk
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
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
    """Moves what it is ordered to. All calls come from the thread of the steps, and none but
    `close` waits for a copy.

    `found` are the blocks that the tiers had from the beginning. `share` is that of one core's time
    that stores may take while steps follow each other; with 1 they do not wait for pauses.
    """

    def __init__(
        self,
        memory: BlockMemory,
        tiers: Sequence[KVTier],
        identity: bytes,
        *,
        found: Sequence[TierKeys] = (),
        share: float,
        copies: BlockCopies | None = None,
        num_loaders: int = 2,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        copies = copies or PlainCopies()
        self._block_size = memory.block_size
        self._desk = TierDesk(tiers, found)
        self._far = FarTiers(tiers, self._desk.tell)
        self._pace = StorePace(share, clock, cpu_clock)
        self._storer = BlockStorer(memory, self._desk, identity, copies, self._pace, clock)
        self._loader = BlockLoader(
            memory, self._desk, identity, copies, num_threads=num_loaders, clock=clock
        )
        self._far_loader = BlockLoader(
            memory,
            self._desk,
            identity,
            copies,
            num_threads=1 if self._far.patience_s else 0,
            patience_s=self._far.patience_s,
            clock=clock,
        )
        self._pending = self._storer.pending
        self._storer.start()
        self._loader.start()
        self._far_loader.start()

    def order(self, orders: BlockOrders) -> None:
        if orders.loads:
            self.give_up(block.block_id for load in orders.loads for block in load.blocks)
            self._loader.order([load for load in orders.loads if not self._far.has_part_in(load)])
            self._far_loader.order([load for load in orders.loads if self._far.has_part_in(load)])
        self._far.look_up(orders.lookups)
        self._storer.order(orders.stores, orders.used)
        for tier in self._desk.tiers if orders.forgotten else ():
            tier.delete(orders.forgotten)

    def give_up(self, block_ids: Iterable[int]) -> None:
        """These blocks are about to be written to. To be called before that."""
        self._pending.give_up(block_ids)

    def begin_step(self, step: SchedulerOutput) -> None:
        """To be called before the step is computed."""
        self._pace.begin_step()
        if self._pending.has_blocks:
            written = list(written_blocks(step, self._block_size))
            if written:
                self._pending.give_up(written)

    def end_step(self) -> None:
        self._pace.end_step()

    def news(self, wait_s: float = 0.0) -> BlockNews | None:
        """What happened since the last call; waits up to so long for something to happen."""
        return self._desk.news(wait_s, lambda: self._pending.num_dropped)

    def close(self, patience_s: float = 0.0) -> None:
        """End all threads, and store for up to so long what still waits."""
        self._far.close()
        self._loader.close(_LOADERS_PATIENCE_S)
        self._far_loader.close(_LOADERS_PATIENCE_S)
        self._storer.close(patience_s)
        self._desk.close()
