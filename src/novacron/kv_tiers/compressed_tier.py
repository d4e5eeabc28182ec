"""CompressedTier: blocks in fewer bytes, in tiers that keep records of one size each.

A block is stored in the coarsest level whose error is small enough: the level that was chosen, or
one of those finer than it, at last as it is. Each level has a tier of its own, because records of a
level have a size of their own. What comes out is a record of a whole block again, so nobody else
knows of levels.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import blake3
import msgspec
import numpy as np

from novacron.kv_tiers.codecs.codec import BlockCodec
from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.protection import NO_PINS
from novacron.kv_tiers.record import HEADER_BYTES, block_of, is_sound, record_bytes, seal
from novacron.kv_tiers.tier import Bytes, KnowsScopes, KVTier, Put, Record
from novacron.records.block import BlockHash
from novacron.records.codec_totals import CodecTotals


def identity_in(identity: bytes, level: str) -> bytes:
    """The identity of records in a level: what blocks agree in, and how they were encoded."""
    if level == "raw":
        return identity
    return blake3.blake3(identity + level.encode()).digest(len(identity))


@dataclass(frozen=True, eq=False)
class Shelf:
    """A level, and the tier of its records, whose identity is `identity_in` the level."""

    codec: BlockCodec
    tier: KVTier


class CompressedTier:
    """`shelves` from the coarsest level to "raw". A block lies on one of them. Implements KVTier
    and KnowsScopes.

    `pinned` blocks are kept a level finer than others, as far as there is room for that. With
    `is_one_place` all shelves share their bytes, as folders do, and each tells of the whole.
    """

    def __init__(
        self,
        shelves: Sequence[Shelf],
        identity: bytes,
        max_error: float,
        *,
        is_one_place: bool,
        pinned: Container[BlockHash] = NO_PINS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        assert shelves[-1].codec.level == "raw"
        self._shelves = tuple(shelves)
        self._identity = identity
        self._identities = [identity_in(identity, shelf.codec.level) for shelf in shelves]
        self._max_error = max_error
        self._is_one_place = is_one_place
        self._pinned = pinned
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = CodecTotals(level=shelves[0].codec.level)

    @property
    def totals(self) -> CodecTotals:
        return self._totals

    @property
    def used_bytes(self) -> int:
        sizes = [shelf.tier.used_bytes for shelf in self._shelves]
        return max(sizes) if self._is_one_place else sum(sizes)

    def put(self, records: Sequence[Record]) -> Put:
        """Raises OSError if none could be kept."""
        finer = [record for record in records if record.key in self._pinned]
        if not finer:
            return self._put(records, 0)
        first = Put()
        with contextlib.suppress(OSError):  # then they are kept as others are
            first = self._put(finer, 1)
        kept = set(first.stored)
        rest = [record for record in records if record.key not in kept]
        second = self._put(rest, 0) if rest else Put()
        stored = first.stored + second.stored
        gone = tuple(key for key in first.dropped + second.dropped if key not in set(stored))
        return Put(stored, gone, first.num_regretted + second.num_regretted)

    def _put(self, records: Sequence[Record], coarsest: int) -> Put:
        placed: list[list[Record]] = [[] for _ in self._shelves]
        for record in records:
            place, data = self._encode(record, coarsest)
            placed[place].append(Record(record.key, data, record.origin))
        stored: list[BlockHash] = []
        dropped: list[BlockHash] = []
        num_regretted = 0
        for place, some in enumerate(placed):
            if not some:
                continue
            try:
                put = self._shelves[place].tier.put(some)
            except OSError:
                if not (stored or dropped):
                    raise
                continue
            stored += put.stored
            dropped += put.dropped
            num_regretted += put.num_regretted
            for shelf in self._shelves[:place] + self._shelves[place + 1 :]:
                shelf.tier.delete(put.stored)
        kept = set(stored)
        lost = tuple(key for key in dropped if key not in kept)
        return Put(tuple(stored), lost, num_regretted)

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        found = [False] * len(keys)
        for place, shelf in enumerate(self._shelves):
            wanted = [index for index, is_there in enumerate(found) if not is_there]
            if not wanted:
                break
            some = [keys[index] for index in wanted]
            there = self._read(place, shelf, some, [into[index] for index in wanted])
            for index, is_there in zip(wanted, there, strict=True):
                found[index] = is_there
        return found

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        wanted = list(keys)
        return list(map(any, zip(*(s.tier.contains(wanted) for s in self._shelves), strict=True)))

    def delete(self, keys: Iterable[BlockHash]) -> None:
        wanted = list(keys)
        for shelf in self._shelves:
            shelf.tier.delete(wanted)

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        tiers = [shelf.tier for shelf in self._shelves]
        return [key for t in tiers if isinstance(t, KnowsScopes) for key in t.keys_of(scope)]

    def close(self) -> None:
        for shelf in self._shelves:
            shelf.tier.close()

    def _encode(self, record: Record, coarsest: int) -> tuple[int, Bytes]:
        """The first shelf from there on whose level loses little enough, and the record for it."""
        started_s = self._clock()
        block = block_of(record.data)
        for place, shelf in enumerate(self._shelves[coarsest:], coarsest):
            codec = shelf.codec
            if codec.level == "raw":
                self._count_encoded(place, len(block), 0.0, started_s)
                break
            data = np.empty(record_bytes(codec.encoded_bytes), np.uint8)
            error = codec.encode(block, block_of(data)).largest
            if error <= self._max_error:
                seal(data, self._identities[place], record.key)
                self._count_encoded(place, codec.encoded_bytes, error, started_s)
                return place, data
        return len(self._shelves) - 1, record.data

    def _read(
        self, place: int, shelf: Shelf, keys: Sequence[BlockHash], into: Sequence[Bytes]
    ) -> list[bool]:
        """Fill the buffers with records of whole blocks. A record that does not check becomes one
        that does not check either."""
        if shelf.codec.level == "raw":
            return shelf.tier.get(keys, into)
        size = record_bytes(shelf.codec.encoded_bytes)
        codes = [np.empty(size, np.uint8) for _ in keys]
        found = shelf.tier.get(keys, codes)
        started_s = self._clock()
        for key, is_there, code, record in zip(keys, found, codes, into, strict=True):
            if is_there and is_sound(code, self._identities[place], key):
                shelf.codec.decode(block_of(code), block_of(record))
                seal(record, self._identity, key)
            elif is_there:
                record[:HEADER_BYTES] = 0
        with self._lock:
            self._totals = msgspec.structs.replace(
                self._totals,
                num_decoded=self._totals.num_decoded + sum(found),
                decode_s=self._totals.decode_s + self._clock() - started_s,
            )
        return found

    def _count_encoded(self, place: int, num_bytes: int, error: float, started_s: float) -> None:
        raw_bytes = self._shelves[-1].codec.encoded_bytes
        with self._lock:
            totals = self._totals
            self._totals = msgspec.structs.replace(
                totals,
                num_encoded=totals.num_encoded + 1,
                num_finer=totals.num_finer + (place > 0),
                raw_bytes=totals.raw_bytes + raw_bytes,
                encoded_bytes=totals.encoded_bytes + num_bytes,
                error=totals.error + error,
                worst_error=max(totals.worst_error, error),
                encode_s=totals.encode_s + self._clock() - started_s,
            )


class HasTotals(Protocol):
    @property
    def totals(self) -> CodecTotals | None: ...


@runtime_checkable
class PacksRecords(Protocol):
    """A tier that makes something of each record by itself (packing.py)."""

    packing: HasTotals


def codec_totals(tier: KVTier) -> CodecTotals | None:
    """What a tier that compresses has done; None for any other."""
    inner = tier.inner if isinstance(tier, GuardedTier) else tier
    if isinstance(inner, PacksRecords):
        return inner.packing.totals
    return inner.totals if isinstance(inner, CompressedTier) else None
