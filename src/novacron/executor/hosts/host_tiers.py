"""HostTiers: the KV tiers of several hosts, each of its own part of all blocks, as one.

Rank 0 alone decides, as on one host; the others get its orders among those of the steps, so that
what comes before a step was ordered before it everywhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.hosts.group_news import GroupNews
from novacron.executor.hosts.host_team import HostTeam
from novacron.executor.hosts.orders import (
    AskWhose,
    CloseTiers,
    GiveUp,
    MoveBlocks,
    OfScope,
    OpenTiers,
    TiersOpen,
)
from novacron.executor.hosts.orders_under_way import OrdersUnderWay
from novacron.executor.hosts.part_blocks import LeadingBlocks
from novacron.executor.hosts.part_tiers import open_part
from novacron.executor.own_rank import OwnRank
from novacron.kv_tiers.block_mover import written_blocks
from novacron.parallel.messages.links import LinkLost
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, BlockOrders, LoadBlocks, TierKeys
from novacron.records.output import TierSpec
from novacron.records.step import SchedulerOutput

_OWN: Final = 0  # rank
_LOOK_S: Final = 0.0005
_STORE_AT_END_S: Final = 3.0  # on other hosts


class HostTiers:
    """Opened when made, on all hosts, once these have their parts. `blocks` are told which have
    been filled; `block_bytes` is what a block takes on all hosts together. Raises ConfigError, and
    LinkLost as the other methods do."""

    def __init__(
        self,
        team: HostTeam,
        rank: OwnRank,
        blocks: LeadingBlocks,
        kv_identity: str,
        block_bytes: int,
        model: ModelConfig,
        cache: CacheConfig,
    ) -> None:
        self._team, self._blocks, self._block_size = team, blocks, cache.block_size
        self._opening = OpenTiers(kv_identity, block_bytes)
        self._own = open_part(rank, self._opening, model, cache)
        self.specs: tuple[TierSpec, ...] = self._own.specs
        self._loads: dict[int, LoadBlocks] = {}
        self._left = OrdersUnderWay()
        self._pinned: tuple[BlockHash, ...] | None = None
        self._group = GroupNews(1)
        self._whose: list[OfScope] = []
        if self.specs:
            try:
                opened = team.open_tiers(self._opening)
                self.specs = _together(self.specs, opened)
            except BaseException:
                self._own.close()
                raise
            shared = [tier for tier, spec in enumerate(self.specs) if spec.is_shared]
            self._group = GroupNews(1 + len(opened), len(self.specs), shared)
            self._see_found(opened)

    def begin_anew(self, team: HostTeam) -> None:
        """With other ranks that have just got their parts. What was ordered and they have not done
        has failed; what this rank's tiers hold stays. Raises LinkLost."""
        self._team, self._whose = team, []
        self._own.forget_steps()
        if not self.specs:
            return
        self._left.await_all(self._take_own)
        self._group.begin_anew()
        self._see_found(team.open_tiers(self._opening))
        if self._pinned is not None:
            team.tell_all(MoveBlocks(BlockOrders(pinned=self._pinned)))

    def _see_found(self, opened: Iterable[TiersOpen]) -> None:
        for other, one in enumerate(opened, 1):
            if one.found is not None:
                self._group.take(other, one.found)

    def begin_step(self, step: SchedulerOutput) -> None:
        """To be called before ranks are told of the step."""
        if self._group.awaits_stores:
            written = tuple(written_blocks(step, self._block_size))
            if written:
                self._team.tell_all(GiveUp(written))
        self._own.begin_step(step)

    def end_step(self) -> None:
        self._own.end_step()

    def move(self, orders: BlockOrders) -> None:
        self._group.see_orders(orders)
        self._loads.update((load.load_id, load) for load in orders.loads)
        self._left.see_orders(orders)
        if orders.pinned is not None:
            self._pinned = orders.pinned
        self._own.move(orders)  # first: if others cannot be told, this rank still comes to an end
        self._team.tell_all(MoveBlocks(orders))

    def hear(self, rank: int, news: BlockNews) -> None:
        """Of another rank."""
        self._group.take(rank, news)

    def news(self) -> BlockNews | None:
        """Of all ranks, without waiting."""
        self._take_own(0.0)
        news = self._group.news()
        for loaded in () if news is None else news.loaded:
            load = self._loads.pop(loaded.load_id)
            self._blocks.see_filled(
                block.block_id for block, ok in zip(load.blocks, loaded.ok, strict=True) if ok
            )
        return news

    @property
    def torn_blocks(self) -> tuple[TierKeys, ...]:
        """Those of which only some hosts have told that they have their part."""
        return self._group.torn

    def _take_own(self, wait_s: float) -> None:
        own = self._own.news(wait_s)
        if own is not None:
            self._left.see_news(own)
            self._group.take(_OWN, own)

    def ask_whose(self, scope: bytes) -> None:
        """Have all hosts tell what they have of a scope. Raises OSError, as `whose`, if a tier
        cannot."""
        self._whose = [OfScope(tuple(self._own.blocks_of(scope)))]
        self._team.tell_all(AskWhose(scope))

    def hear_whose(self, answer: OfScope) -> None:
        self._whose.append(answer)

    def whose(self) -> list[TierKeys] | None:
        """Blocks of which any host has its part; None: not all have answered."""
        if len(self._whose) < self._group.num_ranks:
            return None
        for answer in self._whose:
            if answer.error:
                raise OSError(answer.error)
        keys: dict[int, dict[BlockHash, None]] = {}
        for part in (part for answer in self._whose for part in answer.blocks):
            keys.setdefault(part.tier, {}).update(dict.fromkeys(part.keys))
        return [TierKeys(tier, tuple(found)) for tier, found in keys.items()]

    def close(self) -> None:
        """What tiers still have to store gets a moment, on all hosts that are there."""
        if not self.specs:
            return
        self.specs = ()
        with contextlib.suppress(LinkLost):
            self._team.tell_all(CloseTiers())
            self._own.close()
            self._team.await_closed_tiers(_STORE_AT_END_S)
        self._own.close()


def wait_a_little(until_s: float) -> bool:
    """Whether there was time left to."""
    left_s = until_s - time.monotonic()
    if left_s > 0:
        time.sleep(min(_LOOK_S, left_s))
    return left_s > 0


def _together(own: tuple[TierSpec, ...], others: Iterable[TiersOpen]) -> tuple[TierSpec, ...]:
    """Raises ConfigError if a host has other tiers than this one."""
    kinds = [spec.kind for spec in own]
    together = list(own)
    for opened in others:
        theirs = [spec.kind for spec in opened.specs]
        if theirs != kinds:
            raise ConfigError(
                f"The host {opened.host} has room for the KV tiers {', '.join(theirs) or 'none'}, "
                f"and this one for {', '.join(kinds)}: each keeps its part of every block. Give "
                "all hosts room (kv_ram_size, kv_disk_size, kv_disk_path, which novacron rank "
                "takes, too), or set the size of what is missing to 0."
            )
        together = [
            msgspec.structs.replace(spec, capacity_bytes=spec.capacity_bytes + more.capacity_bytes)
            for spec, more in zip(together, opened.specs, strict=True)
        ]
    return tuple(together)
