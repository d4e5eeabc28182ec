"""Packing: what a record becomes on its way to a tier that takes values of any length.

As it is; smaller without loss (zstd_packing.py); or in a level of compression, finer if that
would lose too much. Tiers in RAM and on disk have places of one size for each level
(compressed_tier.py); a Redis server or a bucket takes any bytes, so there a level stands in front
of each record.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from novacron.kv_tiers.codecs.codec import BlockCodec
from novacron.kv_tiers.compressed_tier import identity_in
from novacron.kv_tiers.record import block_of, is_sound, record_bytes, seal
from novacron.kv_tiers.tier import Bytes
from novacron.records.block import BlockHash
from novacron.records.codec_totals import CodecTotals


class Packing(Protocol):
    """`pack` and `unpack` are each called from one thread at a time. What is unpacked is checked by
    whoever reads it, like any record."""

    @property
    def totals(self) -> CodecTotals | None:
        """What it gained and took; None if it does nothing."""
        ...

    def pack(self, key: BlockHash, record: Bytes) -> Any:
        """Bytes of any length."""
        ...

    def unpack(self, key: BlockHash, data: Any, into: Bytes) -> bool:
        """Fill a record; False if these are not bytes that `pack` made."""
        ...


class Whole:
    """Implements Packing: records as they are."""

    totals: CodecTotals | None = None

    def pack(self, key: BlockHash, record: Bytes) -> Any:
        return record.data

    def unpack(self, key: BlockHash, data: Any, into: Bytes) -> bool:
        if len(data) != len(into):
            return False
        np.copyto(into, np.frombuffer(data, np.uint8))
        return True


class CountedPacking:
    """Totals of packings, from two threads."""

    def __init__(self, level: str, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self.totals: CodecTotals | None = CodecTotals(level=level)

    def add(self, *, error: float = 0.0, **more: float) -> None:
        with self._lock:
            totals = self.totals
            assert totals is not None
            sums = {name: getattr(totals, name) + value for name, value in more.items()}
            self.totals = msgspec.structs.replace(
                totals,
                error=totals.error + error,
                worst_error=max(totals.worst_error, error),
                **sums,
            )


class Coded(CountedPacking):
    """Implements Packing: blocks in the first of these codecs that loses little enough; the last is
    raw. A byte says which."""

    def __init__(
        self,
        codecs: Sequence[BlockCodec],
        identity: bytes,
        max_error: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        assert codecs[-1].level == "raw"
        super().__init__(codecs[0].level, clock)
        self._codecs = tuple(codecs)
        self._identity = identity
        self._identities = [identity_in(identity, codec.level) for codec in codecs]
        self._max_error = max_error

    def pack(self, key: BlockHash, record: Bytes) -> Any:
        started_s = self.clock()
        place, data, error = self._encode(key, record)
        self.add(
            error=error,
            num_encoded=1,
            num_finer=int(place > 0),
            raw_bytes=len(record),
            encoded_bytes=len(data),
            encode_s=self.clock() - started_s,
        )
        return bytes((place,)) + data.tobytes()

    def unpack(self, key: BlockHash, data: Any, into: Bytes) -> bool:
        place = data[0] if len(data) else len(self._codecs)
        if place >= len(self._codecs):
            return False
        codec = self._codecs[place]
        code = np.frombuffer(data, np.uint8)[1:]
        if codec.level == "raw":
            is_whole = len(code) == len(into)
            if is_whole:
                np.copyto(into, code)
            return is_whole
        started_s = self.clock()
        if len(code) != record_bytes(codec.encoded_bytes):
            return False
        if not is_sound(code, self._identities[place], key):
            return False
        codec.decode(block_of(code), block_of(into))
        seal(into, self._identity, key)
        self.add(num_decoded=1, decode_s=self.clock() - started_s)
        return True

    def _encode(self, key: BlockHash, record: Bytes) -> tuple[int, Bytes, float]:
        for place, codec in enumerate(self._codecs[:-1]):
            data = np.empty(record_bytes(codec.encoded_bytes), np.uint8)
            error = codec.encode(block_of(record), block_of(data)).largest
            if error <= self._max_error:
                seal(data, self._identities[place], key)
                return place, data, error
        return len(self._codecs) - 1, record, 0.0
