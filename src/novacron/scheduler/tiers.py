"""Tiers: what the scheduler asks of, and tells, whoever knows of blocks below the device."""

from __future__ import annotations

from typing import Protocol

from novacron.kv_cache.kv_cache_manager import PrefixHit
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, BlockOrders
from novacron.records.output import EngineStats
from novacron.scheduler.request_state import RequestState


class Tiers(Protocol):
    """What the scheduler asks and tells."""

    @property
    def public_keys(self) -> frozenset[BlockHash]:
        """Blocks that requests of all salts share."""
        ...

    def expect(self, state: RequestState) -> None:
        """The request has come, and will start sooner or later."""
        ...

    def begin_load(self, state: RequestState, hit: PrefixHit, num_spare_blocks: int) -> list[int]:
        """Have the part of its prefix brought that follows the hit, if it lies in a tier, and there
        is room for the whole request and `num_spare_blocks`. The request is then LOADING, and out
        of the queue. Returns the device blocks that are going to be filled."""
        ...

    def offer(self, state: RequestState) -> None:
        """The request has computed up to `num_computed_tokens`."""
        ...

    def park(self, state: RequestState) -> None:
        """The request is preempted: what it has computed shall not be lost."""
        ...

    def use(self, state: RequestState) -> None:
        """The request ends, or stops for now."""
        ...

    def begin_step(self, num_tokens: int, num_parts: int) -> None:
        """A step of so many tokens, of so many requests, is going to be computed."""
        ...

    def end_step(self) -> None: ...

    def forget(self, state: RequestState) -> None:
        """Computing the request went wrong, perhaps because of one of its blocks."""
        ...

    def lose_blocks(self) -> None:
        """What blocks of the device held is gone: none of it shall be stored that was not ordered
        yet."""
        ...

    def see(self, news: BlockNews) -> list[RequestState]:
        """Take in news. Returns the requests that need not wait any longer; the newest first, and
        WAITING again, but not in the queue."""
        ...

    def take_orders(self) -> BlockOrders | None: ...

    def add_to(self, stats: EngineStats) -> EngineStats: ...

    @property
    def awaits_news(self) -> bool:
        """Whether there will be news without another step."""
        ...


class NoTiers:
    """The device is all there is."""

    public_keys: frozenset[BlockHash] = frozenset()
    awaits_news = False

    def expect(self, state: RequestState) -> None:
        pass

    def begin_load(self, state: RequestState, hit: PrefixHit, num_spare_blocks: int) -> list[int]:
        return []

    def offer(self, state: RequestState) -> None:
        pass

    def park(self, state: RequestState) -> None:
        pass

    def use(self, state: RequestState) -> None:
        pass

    def begin_step(self, num_tokens: int, num_parts: int) -> None:
        pass

    def end_step(self) -> None:
        pass

    def forget(self, state: RequestState) -> None:
        pass

    def lose_blocks(self) -> None:
        pass

    def see(self, news: BlockNews) -> list[RequestState]:
        raise AssertionError("there are no tiers")

    def take_orders(self) -> BlockOrders | None:
        return None

    def add_to(self, stats: EngineStats) -> EngineStats:
        return stats
