"""A key set of somebody else, kept for a while and fetched again when its keys change.

A key that is not known yet makes us fetch, but never more often than every `refetch_s`, whatever
tokens say: their senders must not make us call others. Keys that nobody confirms any more are not
used for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Generic, TypeVar

from novacron.errors import IdentityUnavailable

MAX_AGE_S: Final = 600.0
REFETCH_S: Final = 10.0
STALE_S: Final = 3600.0

K = TypeVar("K")

logger = logging.getLogger(__name__)


class RemoteKeys(Generic[K]):
    """`fetch` brings all keys by id, or raises IdentityUnavailable.

    A known key is used at once; when the set is older than `max_age_s`, it is fetched beside that.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, K]]],
        *,
        max_age_s: float = MAX_AGE_S,
        refetch_s: float = REFETCH_S,
        stale_s: float = STALE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._max_age_s = max_age_s
        self._refetch_s = refetch_s
        self._stale_s = stale_s
        self._clock = clock
        self._keys: Mapping[str, K] = {}
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> K | None:
        """None for a key that is not in the set. Raises IdentityUnavailable if there is no set."""
        if not self._is_younger_than(self._max_age_s):
            self._start()
        if key_id not in self._keys or not self._is_younger_than(self._stale_s):
            self._start()
            if self._fetching is not None:
                await asyncio.shield(self._fetching)
        if not self._is_younger_than(self._stale_s):
            raise IdentityUnavailable(
                "The keys that tokens are checked with cannot be fetched now; the server's log "
                "says why."
            )
        return self._keys.get(key_id)

    def _is_younger_than(self, age_s: float) -> bool:
        return self._fetched_s is not None and self._clock() - self._fetched_s < age_s

    def _start(self) -> None:
        """Fetch, unless that goes on already or was tried just now."""
        now = self._clock()
        if self._fetching is not None:
            return
        if self._tried_s is None or now - self._tried_s >= self._refetch_s:
            self._tried_s = now
            self._fetching = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            keys = await self._fetch()
        except IdentityUnavailable as error:
            logger.warning("%s", error)
        else:
            self._keys, self._fetched_s = keys, self._clock()
        finally:
            self._fetching = None
