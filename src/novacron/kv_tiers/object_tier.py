"""ObjectTier: records in a bucket of an object store, to archive them or to move them elsewhere.

A few records of one `put` and one scope become one object, whose name is their keys:
PREFIX/IDENTITY/SCOPE!KEY.KEY.KEY, with ~LENGTH (hexadecimal) behind each that is packed, and
without SCOPE! where they are everyone's.
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
import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from novacron.kv_tiers.packing import Packing, Whole
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MOST_OBJECTS: Final = 100_000  # of a listing: what lies beyond them is not found
_SAID: Final = "object store"  # what messages begin with
_SEPARATOR: Final = "."
_SCOPE: Final = "!"  # behind whose records they are
_LENGTH: Final = "~"  # of a record, behind its key, where it is packed
_KEY_BYTES: Final = 16
_MOST_IN_ONE: Final = 7  # records of an object: as a file its name has at most 255 bytes


@dataclass(frozen=True, slots=True)
class _Object:
    """`ends` are those of its records, one after the other."""

    path: str
    keys: tuple[BlockHash, ...]
    ends: tuple[int, ...]
    scope: bytes = b""

    def span(self, place: int) -> tuple[int, int]:
        """Start and length of a record."""
        start = self.ends[place - 1] if place else 0
        return start, self.ends[place] - start


class ObjectTier:
    """Records below a URL such as s3://bucket/prefix, at most `capacity_bytes` of one identity (0:
    any number). Implements ListedTier and KnowsScopes. Nothing is asked of the store before the
    first call.

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
        packing: Packing | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._record_bytes = record_bytes
        self.packing: Packing = packing or Whole()
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
                one = _object_of(path, self._record_bytes)
                if one is not None and size == one.ends[-1]:
                    self._take_in(one)
            self._used_bytes = sum(size for _, _, size in listed)

    def put(self, records: Sequence[Record]) -> Put:
        with self._lock:
            new = {one.key: one for one in records if one.key not in self._place_of}
        dropped: list[BlockHash] = []
        for scope in dict.fromkeys(one.origin.scope for one in new.values()):
            of_scope = [one for one in new.values() if one.origin.scope == scope]
            for start in range(0, len(of_scope), _MOST_IN_ONE):
                dropped += self._put(of_scope[start : start + _MOST_IN_ONE], scope)
        with self._lock:
            return Put.of([record.key for record in records], dropped, self._place_of)

    def _put(self, records: Sequence[Record], scope: bytes) -> list[BlockHash]:
        """One object. Returns what had to go for it."""
        packed = {one.key: self.packing.pack(one.key, one.data) for one in records}
        name = _SEPARATOR.join(self._name(key, len(data)) for key, data in packed.items())
        path = f"{self._folder}/{scope.hex()}{_SCOPE if scope else ''}{name}"
        ends = tuple(itertools.accumulate(map(len, packed.values())))
        with _as_os_errors():
            dropped = self._make_room(ends[-1])
            obstore.put(self._store, path, b"".join(packed.values()))
        with self._lock:
            self._take_in(_Object(path, tuple(packed), ends, scope))
            self._used_bytes += ends[-1]
        return dropped

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
                found[index] = self.packing.unpack(keys[index], memoryview(data), into[index])
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

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        """As far as this process knows, which looks again first."""
        self.refresh()
        with self._lock:
            return [key for key, (one, _) in self._place_of.items() if one.scope == scope]

    def close(self) -> None:
        with self._lock:
            self._objects.clear()
            self._place_of.clear()

    def _name(self, key: BlockHash, length: int) -> str:
        """Records that are as long as any say no length."""
        text = _text_of(key)
        return text if length == self._record_bytes else f"{text}{_LENGTH}{length:x}"

    def _reach(self) -> None:
        with _as_os_errors():
            next(iter(obstore.list(self._store, self._folder + "/", chunk_size=1)), None)

    async def _get_all(self, wanted: dict[_Object, list[tuple[int, int]]]) -> list[Any]:
        async def get(one: _Object, places: list[tuple[int, int]]) -> Any:
            spans = [one.span(place) for place, _ in places]
            starts, lengths = [start for start, _ in spans], [length for _, length in spans]
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
                excess -= one.ends[-1]
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
            self._used_bytes -= one.ends[-1]
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


def _object_of(path: str, record_bytes: int) -> _Object | None:
    """What a path names; None if it is not one of ours."""
    keys, lengths = [], []
    whose, _, names = path.rpartition("/")[2].rpartition(_SCOPE)
    try:
        scope = bytes.fromhex(whose)
        for name in names.split(_SEPARATOR):
            text, has_length, length = name.partition(_LENGTH)
            keys.append(BlockHash(base64.b64decode(f"{text}==", b"-_", True)))
            lengths.append(int(length, 16) if has_length else record_bytes)
    except (binascii.Error, ValueError):
        return None
    if not all(len(key) == _KEY_BYTES for key in keys) or min(lengths) < 0:
        return None
    return _Object(path, tuple(keys), tuple(itertools.accumulate(lengths)), scope)


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Errors of the store and of the way to it as KVTier has them."""
    try:
        yield
    except (BaseError, ValueError, OSError) as error:
        if str(error).startswith(_SAID):
            raise
        raise OSError(f"{_SAID}: {type(error).__name__}: {str(error)[:200]}") from None
