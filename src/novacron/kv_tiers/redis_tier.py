"""RedisTier: records on a Redis or Valkey server, for all engines that know its address.

A record is a value under NAMESPACE:IDENTITY:KEY, with an expiry that starts anew whenever it is
used. Which records there are and when each was used last stands beside them in a sorted set, so
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
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

# KEYS: the sorted set. ARGV: prefix of names, expiry in ms (0: none), then what the script tells.
_PROLOGUE: Final = """
local used, prefix, ttl_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function mark(i)
  local name = ARGV[i]
  redis.call('ZADD', used, string.format('%.6f', now + i / 1e6), name)
  if ttl_ms > 0 then
    redis.call('PEXPIRE', prefix .. name, ttl_ms)
    redis.call('PEXPIRE', used, ttl_ms)
  end
end
"""

# ARGV[3]: most records (0: any number), then names, no more than that many, that are to be set.
_MAKE_ROOM: Final = f"""{_PROLOGUE}
if ttl_ms > 0 then
  redis.call('ZREMRANGEBYSCORE', used, '-inf', string.format('(%.6f', now - ttl_ms / 1e3))
end
for i = 4, #ARGV do mark(i) end
local most, dropped = tonumber(ARGV[3]), {{}}
local excess = redis.call('ZCARD', used) - most
if most > 0 and excess > 0 then
  local oldest = redis.call('ZPOPMIN', used, excess)
  for i = 1, #oldest, 2 do
    dropped[#dropped + 1] = oldest[i]
    redis.call('UNLINK', prefix .. oldest[i])
  end
end
return {{redis.call('ZCARD', used), dropped}}
"""

# ARGV[3...]: names. Those that are not there any more are not counted any longer.
_CONTAINS: Final = f"""{_PROLOGUE}
local found = {{}}
for i = 3, #ARGV do
  found[i - 2] = redis.call('EXISTS', prefix .. ARGV[i])
  if found[i - 2] == 1 then mark(i) else redis.call('ZREM', used, ARGV[i]) end
end
return {{redis.call('ZCARD', used), found}}
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
  redis.call('ZREM', used, ARGV[i])
end
return redis.call('ZCARD', used)
"""


class RedisTier:
    """Records of one identity, at most `capacity_bytes` of them (0: as much as the server takes),
    each for `ttl_s` after its last use (0: for ever). Implements SharedTier. Records count as
    whole ones whatever `packing` makes of them, so with one they take less than is counted.

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
        self._record_bytes = record_bytes
        self.packing: Packing = packing or Whole()
        self._most_records = capacity_bytes // record_bytes
        assert capacity_bytes == 0 or self._most_records > 0, "no room for one record"
        self._ttl_ms = round(ttl_s * 1000)
        self._prefix = f"{namespace}:{identity.hex()}:"
        self._used = f"{self._prefix}used"
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
        self._num_records = 0

    @property
    def used_bytes(self) -> int:
        """Of all engines' records of this identity, when the server last told."""
        return self._num_records * self._record_bytes

    def put(self, records: Sequence[Record]) -> Put:
        stored: dict[BlockHash, None] = {}
        dropped: list[BlockHash] = []
        at_once = self._most_records or len(records)
        with _as_os_errors():
            for start in range(0, len(records), at_once):
                part = records[start : start + at_once]
                gone = self._put(part)
                stored |= dict.fromkeys(record.key for record in part)
                for key in gone:
                    stored.pop(key, None)
                dropped += gone
        return Put.of(stored, dropped, stored)

    def _put(self, records: Sequence[Record]) -> list[BlockHash]:
        """Returns what had to go for them, which is none of them."""
        names = [record.key.hex() for record in records]
        with self._client.pipeline(transaction=True) as transaction:
            limits = (self._ttl_ms, self._most_records)
            transaction.eval(_MAKE_ROOM, 1, self._used, self._prefix, *limits, *names)
            for name, record in zip(names, records, strict=True):
                data = self.packing.pack(record.key, record.data)
                transaction.set(self._prefix + name, data, px=self._ttl_ms or None)
            [(self._num_records, dropped), *_] = transaction.execute()
        return [BlockHash(bytes.fromhex(name.decode())) for name in dropped]

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        if not keys:
            return []
        with _as_os_errors():
            values: Any = self._client.mget([self._prefix + key.hex() for key in keys])
        found = []
        for key, value, buffer in zip(keys, values, into, strict=True):
            found.append(value is not None and self.packing.unpack(key, value, buffer))
        return found

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        names = [key.hex() for key in keys]
        with _as_os_errors():
            self._num_records, found = self._contains(
                [self._used], [self._prefix, self._ttl_ms, *names]
            )
        return [bool(one) for one in found]

    def count_leading(self, keys: Sequence[BlockHash]) -> int:
        with _as_os_errors():
            count = self._count_leading([self._used], [self._prefix, *(key.hex() for key in keys)])
        return int(count)

    def delete(self, keys: Iterable[BlockHash]) -> None:
        names = [key.hex() for key in keys]
        with _as_os_errors():
            self._num_records = self._delete([self._used], [self._prefix, self._ttl_ms, *names])

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
