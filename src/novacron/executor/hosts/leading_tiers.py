"""LeadingTiers: KV tiers of rank 0 alone, which has all of every block. What comes from them, other
hosts get when they need it."""

from __future__ import annotations

import msgspec

from novacron.executor.hosts.host_team import HostTeam
from novacron.executor.hosts.orders import OfScope
from novacron.executor.hosts.orders_under_way import OrdersUnderWay
from novacron.executor.hosts.stale_blocks import StaleBlocks
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.records.block_moves import BlockNews, BlockOrders, LoadedBlocks, TierKeys
from novacron.records.output import TierSpec
from novacron.records.step import SchedulerOutput


class LeadingTiers:
    """What OverHosts asks of HostTiers."""

    def __init__(self, own: TieredBlocks, stale: StaleBlocks) -> None:
        self._own, self._stale = own, stale
        self._left = OrdersUnderWay()
        self._untold: list[BlockNews] = []
        self._whose: list[TierKeys] = []
        self.specs: tuple[TierSpec, ...] = own.specs

    def begin_step(self, step: SchedulerOutput) -> None:
        self._own.begin_step(step)

    def end_step(self) -> None:
        self._own.end_step()

    def move(self, orders: BlockOrders) -> None:
        for load in orders.loads:
            self._stale.see_filled(block.block_id for block in load.blocks)
        self._left.see_orders(orders)
        self._own.move(orders)

    def begin_anew(self, team: HostTeam) -> None:
        """With other ranks. Loads that have not been told of have failed: no block of the device is
        what it was. Raises LinkLost."""
        self._own.forget_steps()
        self._left.await_all(self._take_own)
        self._untold = [_without_loads(news) for news in self._untold]

    def hear(self, rank: int, news: BlockNews) -> None:
        raise AssertionError(f"rank {rank} has no tiers")

    def news(self) -> BlockNews | None:
        self._take_own(0.0)
        return self._untold.pop(0) if self._untold else None

    def _take_own(self, wait_s: float) -> None:
        news = self._own.news(wait_s)
        if news is not None:
            self._left.see_news(news)
            self._untold.append(news)

    @property
    def torn_blocks(self) -> tuple[TierKeys, ...]:
        """None: there are no parts."""
        return ()

    def ask_whose(self, scope: bytes) -> None:
        """Raises OSError if a tier cannot tell."""
        self._whose = self._own.blocks_of(scope)

    def hear_whose(self, answer: OfScope) -> None:
        raise AssertionError("nobody was asked")

    def whose(self) -> list[TierKeys] | None:
        return self._whose

    def close(self) -> None:
        self.specs = ()
        self._own.close()


def _without_loads(news: BlockNews) -> BlockNews:
    failed = tuple(LoadedBlocks(load.load_id, (False,) * len(load.ok)) for load in news.loaded)
    return msgspec.structs.replace(news, loaded=failed)
