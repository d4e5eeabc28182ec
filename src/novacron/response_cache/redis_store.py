"""RedisStore: answers on a Redis or Valkey server, for all API processes that know its address.

An entry is a hash under PREFIX:TENANT:DIGEST with the data and a count of hits, and an expiry that
is set once. How much may be kept is the server's business (maxmemory, maxmemory-policy).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from novacron.response_cache.identity import Key
from novacron.response_cache.store import Amount, StoreFailed

T = TypeVar("T")

_GET: Final = """
local data = redis.call('HGET', KEYS[1], 'data')
if data then redis.call('HINCRBY', KEYS[1], 'hits', 1) end
return data
"""
_PUT: Final = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'data', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_AT_ONCE: Final = 500  # keys of a scan


class RedisStore:
    """`deadline_s` is how long any question may take."""

    def __init__(self, url: str, prefix: str, deadline_s: float) -> None:
        self._prefix = prefix
        self._client = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=deadline_s,
            socket_connect_timeout=deadline_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._get = self._client.register_script(_GET)
        self._put = self._client.register_script(_PUT)

    async def get(self, key: Key) -> bytes | None:
        return cast("bytes | None", await _told(self._get(keys=[self._name(key)])))

    async def put(self, key: Key, data: bytes, ttl_s: float) -> None:
        await _told(self._put(keys=[self._name(key)], args=[data, max(1, round(ttl_s * 1000))]))

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        return await _told(self._walk(tenant or "*", drop=not dry_run))

    async def amount(self) -> Amount:
        return await _told(self._walk("*", drop=False))

    async def purge(self) -> int:
        """The server does so itself."""
        return 0

    async def close(self) -> None:
        await self._client.aclose()

    def _name(self, key: Key) -> str:
        return f"{self._prefix}:{key.tenant}:{key.digest}"

    async def _walk(self, tenant: str, *, drop: bool) -> Amount:
        num_entries = num_bytes = 0
        batch: list[bytes] = []
        async for name in self._client.scan_iter(f"{self._prefix}:{tenant}:*", count=_AT_ONCE):
            batch.append(name)
            if len(batch) == _AT_ONCE:
                num_bytes += await self._take(batch, drop=drop)
                num_entries += len(batch)
                batch = []
        if batch:
            num_bytes += await self._take(batch, drop=drop)
        return Amount(num_entries + len(batch), num_bytes)

    async def _take(self, names: list[bytes], *, drop: bool) -> int:
        """The bytes of the entries, which go if they are to."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hstrlen(name, "data")
            sizes = await pipeline.execute()
        if drop:
            await self._client.unlink(*names)
        return sum(sizes)


async def _told(question: Awaitable[T]) -> T:
    try:
        return await question
    except (redis.RedisError, OSError) as error:
        raise StoreFailed(str(error)) from error
