"""TierDesk: what the threads that move blocks share: the tiers, what they did, and what failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from novacron.kv_tiers.tier import KVTier
from novacron.records.block_moves import BlockNews, TierKeys, TierTotals

logger = logging.getLogger(__name__)

_REST_S: Final = 10.0  # of a tier that could not do its work


class TierDesk:
    """`found` are the blocks that the tiers had from the beginning. From any thread."""

    def __init__(
        self,
        tiers: Sequence[KVTier],
        found: Sequence[TierKeys] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tiers = tuple(tiers)
        self._clock = clock
        self._has_news = threading.Condition()
        self._news: list[BlockNews] = [BlockNews(added=tuple(found))] if found else []
        self._totals = [TierTotals() for _ in tiers]
        self._rests_until_s = [0.0 for _ in tiers]

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
                totals=tuple(self._totals),
                num_drops=sum(one.num_drops for one in news),
                promoted=tuple(key for one in news for key in one.promoted),
            )

    def count(self, index: int, **more: float) -> None:
        """Add to a tier's totals."""
        used_bytes = self.tiers[index].used_bytes
        with self._has_news:
            totals = self._totals[index]
            sums = {name: getattr(totals, name) + value for name, value in more.items()}
            self._totals[index] = msgspec.structs.replace(totals, **sums, used_bytes=used_bytes)

    def rests(self, index: int) -> bool:
        """Whether a tier failed a short time ago, and is not to be given anything."""
        return self._clock() < self._rests_until_s[index]

    def see_error(self, index: int, error: Exception) -> None:
        """Whatever it is, requests can do without a tier."""
        self._rests_until_s[index] = self._clock() + _REST_S
        self.count(index, num_errors=1)
        is_ours = not isinstance(error, OSError)
        logger.warning(
            "A KV tier failed, and takes nothing for %.0f s: %r.", _REST_S, error, exc_info=is_ours
        )

    def close(self) -> None:
        for tier in self.tiers:
            tier.close()
