"""RedisTier: records on a Redis or Valkey server, for all engines that know its address.

A record is a value under NAMESPACE:IDENTITY:KEY, with an expiry that starts anew whenever it is
used. Which records there are, when each was used last and how long it is stands beside them, so
that every engine keeps the same limit, and knows how much of it is taken, whoever put what. What is
to change together changes in a script, which the server runs as one: the limit holds at any moment.
Times are the server's. If the server itself evicts (its maxmemory), more is counted than is there,
until those records would have expired.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from novacron.kv_tiers.packing import Packing, Whole
from novacron.kv_tiers.redis_values import read_values
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

# KEYS: the sorted set, the bytes of each record, and whose it is, if somebody's. ARGV: prefix of
# names, expiry in ms (0: none), then what the script tells. All bytes together stand under a name
# that no record has.
_PROLOGUE: Final = """
local used, sizes, scopes = KEYS[1], KEYS[2], KEYS[3]
local prefix, ttl_ms = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function num_bytes(name) return tonumber(redis.call('HGET', sizes, name) or 0) end
local function count(name, size)
  redis.call('HINCRBY', sizes, 'all', size - num_bytes(name))
  if size > 0 then redis.call('HSET', sizes, name, size) else redis.call('HDEL', sizes, name) end
end
local function forget(name)
  redis.call('ZREM', used, name)
  redis.call('HDEL', scopes, name)
  count(name, 0)
end
local function mark(name, order)
  redis.call('ZADD', used, string.format('%.6f', now + order / 1e6), name)
  if ttl_ms > 0 then
    redis.call('PEXPIRE', prefix .. name, ttl_ms)
    redis.call('PEXPIRE', used, ttl_ms)
    redis.call('PEXPIRE', sizes, ttl_ms)
    redis.call('PEXPIRE', scopes, ttl_ms)
  end
end
"""

# ARGV[3]: most bytes (0: any number), then names, bytes, no more in all, and scopes (empty:
# everyone's), that are to be set.
_MAKE_ROOM: Final = f"""{_PROLOGUE}
if redis.call('ZCARD', used) == 0 then redis.call('DEL', sizes, scopes) end
if ttl_ms > 0 then
  local before = string.format('(%.6f', now - ttl_ms / 1e3)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', used, '-inf', before)) do forget(name) end
end
for i = 4, #ARGV, 3 do
  count(ARGV[i], tonumber(ARGV[i + 1]))
  if ARGV[i + 2] ~= '' then redis.call('HSET', scopes, ARGV[i], ARGV[i + 2]) end
  mark(ARGV[i], i)
end
local most, dropped = tonumber(ARGV[3]), {{}}
while most > 0 and num_bytes('all') > most do
  local oldest = redis.call('ZPOPMIN', used)[1]
  if not oldest then break end
  dropped[#dropped + 1] = oldest
  forget(oldest)
  redis.call('UNLINK', prefix .. oldest)
end
return {{num_bytes('all'), dropped}}
"""

# ARGV[3...]: names. Those that are not there any more are not counted any longer.
_CONTAINS: Final = f"""{_PROLOGUE}
local found = {{}}
for i = 3, #ARGV do
  found[i - 2] = redis.call('EXISTS', prefix .. ARGV[i])
  if found[i - 2] == 1 then mark(ARGV[i], i) else forget(ARGV[i]) end
end
return {{num_bytes('all'), found}}
"""

_COUNT_LEADING: Final = """
for i = 2, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ARGV[i]) == 0 then return i - 2 end
end
return #ARGV - 1
"""

_DELETE: Final = f"""{_PROLOGUE}
for i = 3, #ARGV do
  redis.call('UNLINK', prefix .. ARGV[i])
  forget(ARGV[i])
end
return num_bytes('all')
"""


_Packed = tuple[BlockHash, Any, bytes]  # what the record became, and its scope
_SCANNED_AT_ONCE: Final = 5000


class RedisTier:
    """Records of one identity, at most `capacity_bytes` of them (0: as much as the server takes),
    each for `ttl_s` after its last use (0: for ever). Implements SharedTier and
    KnowsScopes. What counts is what `packing` makes of a record, without the server's own bytes
    for it.

    Nothing is asked of the server before the first call, so it need not be there yet. `timeout_s`
    is for each answer, and for a connection. Raises ValueError if the URL is not one of Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        record_bytes: int,
        identity: bytes,
        capacity_bytes: int,
        ttl_s: float,
        namespace: str,
        timeout_s: float,
        packing: Packing | None = None,
    ) -> None:
        assert capacity_bytes == 0 or capacity_bytes >= record_bytes, "no room for one record"
        self.packing: Packing = packing or Whole()
        self._capacity_bytes = capacity_bytes
        self._ttl_ms = round(ttl_s * 1000)
        self._prefix = f"{namespace}:{identity.hex()}:"
        self._books = tuple(self._prefix + name for name in ("used", "sizes", "scopes"))
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A connection that was idle may have been closed: such a call is made again at once.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            protocol=2,
        )
        self._contains = self._client.register_script(_CONTAINS)
        self._count_leading = self._client.register_script(_COUNT_LEADING)
        self._delete = self._client.register_script(_DELETE)
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Of all engines' records of this identity, when the server last told."""
        return self._used_bytes

    def put(self, records: Sequence[Record]) -> Put:
        stored: dict[BlockHash, None] = {}
        dropped: list[BlockHash] = []
        packed = [
            (one.key, self.packing.pack(one.key, one.data), one.origin.scope) for one in records
        ]
        with _as_os_errors():
            for part in self._parts(packed):
                gone = self._put(part)
                stored |= dict.fromkeys(key for key, *_ in part)
                for key in gone:
                    stored.pop(key, None)
                dropped += gone
        return Put.of(stored, dropped, stored)

    def _parts(self, packed: Sequence[_Packed]) -> Iterator[list[_Packed]]:
        """As many at once as there may be in all; one that is longer than that not at all."""
        part: list[_Packed] = []
        num_bytes = 0
        for key, data, scope in packed:
            if self._capacity_bytes and len(data) > self._capacity_bytes:
                continue
            if part and self._capacity_bytes and num_bytes + len(data) > self._capacity_bytes:
                yield part
                part, num_bytes = [], 0
            part.append((key, data, scope))
            num_bytes += len(data)
        if part:
            yield part

    def _put(self, part: Sequence[_Packed]) -> list[BlockHash]:
        """Returns what had to go for them, which is none of them."""
        told = [text for key, data, scope in part for text in (key.hex(), len(data), scope.hex())]
        with self._client.pipeline(transaction=True) as transaction:
            limits = (self._ttl_ms, self._capacity_bytes)
            transaction.eval(_MAKE_ROOM, 3, *self._books, self._prefix, *limits, *told)
            for key, data, _ in part:
                transaction.set(self._prefix + key.hex(), data, px=self._ttl_ms or None)
            [(self._used_bytes, dropped), *_] = transaction.execute()
        return [BlockHash(bytes.fromhex(name.decode())) for name in dropped]

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        if not keys:
            return []
        names = [self._prefix + key.hex() for key in keys]
        with _as_os_errors():
            if isinstance(self.packing, Whole):
                return read_values(self._client.connection_pool, names, into)
            values: Any = self._client.mget(names)
        found = []
        for key, value, buffer in zip(keys, values, into, strict=True):
            found.append(value is not None and self.packing.unpack(key, value, buffer))
        return found

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        names = [key.hex() for key in keys]
        with _as_os_errors():
            self._used_bytes, found = self._contains(
                self._books, [self._prefix, self._ttl_ms, *names]
            )
        return [bool(one) for one in found]

    def count_leading(self, keys: Sequence[BlockHash]) -> int:
        with _as_os_errors():
            count = self._count_leading((), [self._prefix, *(key.hex() for key in keys)])
        return int(count)

    def delete(self, keys: Iterable[BlockHash]) -> None:
        names = [key.hex() for key in keys]
        with _as_os_errors():
            self._used_bytes = self._delete(self._books, [self._prefix, self._ttl_ms, *names])

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        """Whoever put them."""
        with _as_os_errors():
            owned = self._client.hscan_iter(self._books[2], count=_SCANNED_AT_ONCE)
            wanted = scope.hex().encode()
            return [BlockHash(bytes.fromhex(name.decode())) for name, one in owned if one == wanted]

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Errors of the server and of the way to it as KVTier has them. Messages of a server hold
    neither its password nor a record."""
    try:
        yield
    except redis.RedisError as error:
        raise OSError(f"Redis: {type(error).__name__}: {str(error)[:200]}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:  # an answer that is none
        raise OSError(f"Redis: not an answer: {type(error).__name__}") from None
