"""ObjectTier: records in a bucket of an object store, to archive them or to move them elsewhere.

The records of one `put` become one object, whose name is their keys: PREFIX/IDENTITY/KEY.KEY.KEY.
So a listing of names is the whole index, requests are few, and an object is never changed: it is
there as it was put, or it is not. What others put since is seen at the next `refresh`.

An object store does not know what was used when. Where there is a limit, the objects that were put
first go first, by the listing that this process saw last; so several who write to one prefix may be
above it by what the others have put since.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MOST_OBJECTS: Final = 100_000  # of a listing: what lies beyond them is not found
_SAID: Final = "object store"  # what messages begin with
_SEPARATOR: Final = "."
_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Object:
    path: str
    keys: tuple[BlockHash, ...]


class ObjectTier:
    """Records below a URL such as s3://bucket/prefix, at most `capacity_bytes` of one identity (0:
    any number). Implements ListedTier. Nothing is asked of the store before the first call.

    What the URL leaves open (region, keys, another endpoint) comes from where the store's own tools
    take it from. `timeout_s` is for each request. Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        record_bytes: int,
        identity: bytes,
        capacity_bytes: int,
        timeout_s: float,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._record_bytes = record_bytes
        self._capacity_bytes = capacity_bytes
        self._folder = identity.hex()
        remote = not url.startswith(("file:", "memory:"))
        patience = timedelta(seconds=timeout_s)
        clients: dict[str, Any] = {
            "client_options": {
                "timeout": patience,
                "connect_timeout": patience,
                "allow_http": True,
            },
            "retry_config": {"max_retries": 1, "retry_timeout": patience},
        }
        try:
            self._store: Any = from_url(url, **(clients if remote else {}), **(options or {}))
        except BaseError as error:
            raise ValueError(str(error)[:200]) from None
        self._lock = threading.Lock()
        self._objects: dict[str, _Object] = {}  # put first, first
        self._place_of: dict[BlockHash, tuple[_Object, int]] = {}
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Of the objects of this identity that this process knows."""
        return self._used_bytes

    @property
    def keys(self) -> tuple[BlockHash, ...]:
        with self._lock:
            return tuple(self._place_of)

    def refresh(self) -> None:
        """See what the store holds now."""
        with _as_os_errors():
            listed = []
            for page in obstore.list(self._store, self._folder + "/", chunk_size=1000):
                listed += [(one["last_modified"], one["path"], one["size"]) for one in page]
                if len(listed) >= _MOST_OBJECTS:
                    break
        with self._lock:
            self._objects.clear()
            self._place_of.clear()
            for _, path, size in sorted(listed[:_MOST_OBJECTS]):
                keys = _keys_of(path)
                if keys and size == len(keys) * self._record_bytes:
                    self._take_in(_Object(path, keys))
            self._used_bytes = sum(size for _, _, size in listed)

    def put(self, records: Sequence[Record]) -> Put:
        with self._lock:
            new = {r.key: r.data for r in records if r.key not in self._place_of}
        dropped: list[BlockHash] = []
        if new:
            path = f"{self._folder}/{_SEPARATOR.join(map(_text_of, new))}"
            size = len(new) * self._record_bytes
            with _as_os_errors():
                dropped = self._make_room(size)
                obstore.put(self._store, path, b"".join(data.data for data in new.values()))
            with self._lock:
                self._take_in(_Object(path, tuple(new)))
                self._used_bytes += size
        with self._lock:
            return Put.of([record.key for record in records], dropped, self._place_of)

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        wanted: dict[_Object, list[tuple[int, int]]] = {}
        with self._lock:
            for index, key in enumerate(keys):
                where = self._place_of.get(key)
                if where is not None:
                    wanted.setdefault(where[0], []).append((where[1], index))
        found = [False] * len(keys)
        with _as_os_errors():
            parts = asyncio.run(self._get_all(wanted))
        for (one, places), part in zip(wanted.items(), parts, strict=True):
            if part is None:
                self._forget(one)
                continue
            for (_, index), data in zip(places, part, strict=True):
                found[index] = len(data) == len(into[index])
                if found[index]:
                    np.copyto(into[index], np.frombuffer(data, np.uint8))
        return found

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        """As far as this process knows. Nothing is marked."""
        wanted = tuple(keys)
        if not wanted:
            self._reach()
        with self._lock:
            return [key in self._place_of for key in wanted]

    def delete(self, keys: Iterable[BlockHash]) -> None:
        """With a record goes the object that holds it."""
        with self._lock:
            wheres = [self._place_of[key] for key in keys if key in self._place_of]
        objects = dict.fromkeys(one for one, _ in wheres)
        if objects:
            self._remove(list(objects))

    def close(self) -> None:
        with self._lock:
            self._objects.clear()
            self._place_of.clear()

    def _reach(self) -> None:
        with _as_os_errors():
            next(iter(obstore.list(self._store, self._folder + "/", chunk_size=1)), None)

    async def _get_all(self, wanted: dict[_Object, list[tuple[int, int]]]) -> list[Any]:
        async def get(one: _Object, places: list[tuple[int, int]]) -> Any:
            starts = [place * self._record_bytes for place, _ in places]
            lengths = [self._record_bytes] * len(places)
            try:
                return await obstore.get_ranges_async(
                    self._store, one.path, starts=starts, lengths=lengths
                )
            except FileNotFoundError:
                return None

        return await asyncio.gather(*(get(one, places) for one, places in wanted.items()))

    def _make_room(self, num_bytes: int) -> list[BlockHash]:
        """Remove the oldest objects until so many bytes more are within the limit."""
        if self._capacity_bytes == 0:
            return []
        with self._lock:
            excess = self._used_bytes + num_bytes - self._capacity_bytes
            oldest = []
            for one in self._objects.values():
                if excess <= 0:
                    break
                oldest.append(one)
                excess -= len(one.keys) * self._record_bytes
        if excess > 0:
            raise OSError(f"{_SAID}: the limit is less than what is to be put at once")
        return self._remove(oldest) if oldest else []

    def _remove(self, objects: Sequence[_Object]) -> list[BlockHash]:
        with _as_os_errors():
            obstore.delete(self._store, [one.path for one in objects])
        return [key for one in objects for key in self._forget(one)]

    def _forget(self, one: _Object) -> list[BlockHash]:
        with self._lock:
            if self._objects.pop(one.path, None) is None:
                return []
            self._used_bytes -= len(one.keys) * self._record_bytes
            mine = [key for key in one.keys if self._place_of.get(key, (None,))[0] is one]
            for key in mine:
                del self._place_of[key]
            return mine

    def _take_in(self, one: _Object) -> None:
        self._objects[one.path] = one
        for place, key in enumerate(one.keys):
            self._place_of.setdefault(key, (one, place))


def _text_of(key: BlockHash) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def _keys_of(path: str) -> tuple[BlockHash, ...]:
    """Those that a path names; none if it is not one of ours."""
    names = path.rpartition("/")[2].split(_SEPARATOR)
    try:
        keys = tuple(BlockHash(base64.b64decode(f"{name}==", b"-_", True)) for name in names)
    except (binascii.Error, ValueError):
        return ()
    return keys if all(len(key) == _KEY_BYTES for key in keys) else ()


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Errors of the store and of the way to it as KVTier has them."""
    try:
        yield
    except (BaseError, ValueError, OSError) as error:
        if str(error).startswith(_SAID):
            raise
        raise OSError(f"{_SAID}: {type(error).__name__}: {str(error)[:200]}") from None
