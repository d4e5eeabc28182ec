"""ResponseCache: answers found and kept. A store that fails costs hits, never an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, TypeVar

from novacron.kv_tiers.circuit_breaker import Breaker, BreakerConfig
from novacron.observability.response_cache_counts import ResponseCacheCounts
from novacron.response_cache.answer import CachedAnswer, decode, encode
from novacron.response_cache.identity import Key
from novacron.response_cache.store import Amount, AnswerStore, StoreFailed

T = TypeVar("T")

logger = logging.getLogger(__name__)

_BREAKER: Final = BreakerConfig(failures=2, first_rest_s=1.0, longest_rest_s=60.0)


class ResponseCache:
    """`wall_clock` is Unix time."""

    def __init__(
        self,
        store: AnswerStore,
        ttl_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = ResponseCacheCounts()
        self._store = store
        self._ttl_s = ttl_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._breaker = Breaker(_BREAKER)

    @property
    def now_s(self) -> float:
        """Unix time."""
        return self._wall_clock()

    async def find(self, key: Key, most_age_s: float = inf) -> CachedAnswer | None:
        """One that is no older. Counts nothing: who asks knows what comes of it."""
        data = await self._guarded(lambda: self._store.get(key), None)
        answer = None if data is None else decode(data)
        if answer is None or answer.created_s + min(self._ttl_s, most_age_s) <= self.now_s:
            return None
        return answer

    async def keep(self, key: Key, answer: CachedAnswer, most_age_s: float = inf) -> None:
        """For no longer than that, and than the server keeps any."""

        async def put() -> bool:
            await self._store.put(key, encode(answer), min(self._ttl_s, most_age_s))
            return True

        is_kept = await self._guarded(put, False)
        self.counts.events["stored" if is_kept else "not_stored"] += 1

    def count_hit(self, answer: CachedAnswer, *, semantic: bool = False) -> None:
        self.counts.events["semantic_hit" if semantic else "hit"] += 1
        self.counts.num_saved_tokens += answer.num_output_tokens

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        """Raises StoreFailed: who asks for this wants to know."""
        amount = await self._store.flush(tenant, dry_run=dry_run)
        if not dry_run:
            whose = "all tenants" if tenant is None else f"tenant {tenant}"
            logger.info("response cache flushed: %d answers of %s", amount.entries, whose)
        return amount

    async def amount(self) -> Amount | None:
        """None if the store does not answer."""
        return await self._guarded(self._store.amount, None)

    async def purge(self) -> int:
        """Drop what has ended and nobody has asked for since; how many. Raises StoreFailed."""
        return await self._store.purge()

    async def close(self) -> None:
        await self._store.close()

    async def _guarded(self, question: Callable[[], Awaitable[T]], otherwise: T | None) -> T | None:
        self._breaker, may_ask = self._breaker.ask(self._clock())
        if not may_ask:
            return otherwise
        try:
            answer = await question()
        except StoreFailed as error:
            self._breaker = self._breaker.fail(self._clock())
            self.counts.events["error"] += 1
            logger.warning("the response cache's store failed: %s", error)
            return otherwise
        except BaseException:
            self._breaker = self._breaker.succeed()  # who asked has left; the store is not at fault
            raise
        self._breaker = self._breaker.succeed()
        return answer
