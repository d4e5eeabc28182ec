"""TierDesk: what the threads that move blocks share: the tiers, what they did, and what failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import msgspec

from novacron.kv_tiers.compressed_tier import codec_totals
from novacron.kv_tiers.guarded_tier import TierResting, with_breakers
from novacron.kv_tiers.tier import KVTier
from novacron.records.block_moves import BlockNews, TierKeys, TierTotals
from novacron.records.latency_counts import LatencyCounts

logger = logging.getLogger(__name__)


class TierDesk:
    """`found` are the blocks that the tiers had from the beginning. From any thread."""

    def __init__(
        self,
        tiers: Sequence[KVTier],
        found: Sequence[TierKeys] = (),
    ) -> None:
        self.tiers = tuple(tiers)
        self._has_news = threading.Condition()
        self._news: list[BlockNews] = [BlockNews(added=tuple(found))] if found else []
        self._totals = [TierTotals(used_bytes=tier.used_bytes) for tier in tiers]
        self._compresses = [codec_totals(tier) is not None for tier in tiers]

    def tell(self, news: BlockNews) -> None:
        with self._has_news:
            self._news.append(news)
            self._has_news.notify()

    def news(self, wait_s: float, num_stores_dropped: Callable[[], int]) -> BlockNews | None:
        """What happened since the last call; waits up to so long for something to happen."""
        if not self._news and wait_s == 0.0:
            return None
        with self._has_news:
            if not self._news:
                self._has_news.wait(wait_s)
            news, self._news = self._news, []
            if not news:
                return None
            return BlockNews(
                added=tuple(part for one in news for part in one.added),
                removed=tuple(part for one in news for part in one.removed),
                settled=tuple(key for one in news for key in one.settled),
                loaded=tuple(part for one in news for part in one.loaded),
                num_stores_dropped=num_stores_dropped(),
                totals=tuple(map(with_breakers, self._totals, self.tiers)),
                looked_up=tuple(key for one in news for key in one.looked_up),
                num_drops=sum(one.num_drops for one in news),
                promoted=tuple(key for one in news for key in one.promoted),
            )

    def count(self, index: int, **more: float | LatencyCounts) -> None:
        """Add to a tier's totals."""
        used_bytes = self.tiers[index].used_bytes
        codec = codec_totals(self.tiers[index]) if self._compresses[index] else None
        with self._has_news:
            totals = self._totals[index]
            sums = {name: getattr(totals, name) + value for name, value in more.items()}
            self._totals[index] = msgspec.structs.replace(
                totals, **sums, used_bytes=used_bytes, codec=codec
            )

    def set_pressure(self, index: int, pressure: str) -> None:
        """How scarce what the tier is made of is now."""
        with self._has_news:
            self._totals[index] = msgspec.structs.replace(self._totals[index], pressure=pressure)
            self._news.append(BlockNews())
            self._has_news.notify()

    def see_error(self, index: int, error: Exception) -> None:
        """Whatever it is, requests can do without a tier. Its guard logs what keeps happening."""
        if not isinstance(error, TierResting):
            self.count(index, num_errors=1)
        if not isinstance(error, OSError):
            logger.warning("A KV tier failed: %r.", error, exc_info=True)

    def close(self) -> None:
        for tier in self.tiers:
            tier.close()
