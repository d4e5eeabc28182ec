"""Warm start: what was used most before a restart comes from disk to RAM while the engine idles.

The RAM tier is empty then, so nothing is displaced. Within a budget of bytes, of bytes a second and
of time: what nobody asked for in the first minute can wait for whoever asks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from novacron.kv_tiers.record import is_sound
from novacron.kv_tiers.segment_table import Entry
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_BLOCKS_AT_ONCE: Final = 8


@dataclass(frozen=True, kw_only=True)
class WarmStartLimits:
    most_bytes: int
    bytes_per_s: float
    seconds: float = 60.0  # from its beginning


class Copier(Protocol):
    """Whoever reads from tiers and stores in them, by their places."""

    def get(
        self, place: int, keys: Sequence[BlockHash], into: Sequence[Bytes]
    ) -> Sequence[bool]: ...
    def put(self, place: int, records: Sequence[Record]) -> Put: ...


def most_used(entries: Iterable[Entry], count: int) -> list[Entry]:
    """Those with the most uses, of equal ones those used last; none that was never used. What
    a block builds upon was used as often, and comes before it."""
    used = (entry for entry in entries if entry.num_uses > 0)
    order = sorted(used, key=lambda one: (-one.num_uses, -one.used_s, one.origin.depth))
    return order[:count]


class WarmStart:
    """Copies from the tier at `source` to that at `target`. `choose` tells which, so many at most;
    it is asked once."""

    def __init__(
        self,
        choose: Callable[[int], Sequence[Entry]],
        source: int,
        target: int,
        *,
        record_bytes: int,
        identity: bytes,
        limits: WarmStartLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._choose = choose
        self._source = source
        self.target = target
        self._record_bytes = record_bytes
        self._identity = identity
        self._limits = limits
        self._clock = clock
        self._end_s = math.inf  # counted from the first call of `work`
        self._next_s = -math.inf
        self._waiting: list[Entry] | None = None
        self._unused: set[BlockHash] = set()

    @property
    def is_over(self) -> bool:
        return self._waiting == [] or self._clock() >= self._end_s

    @property
    def is_time(self) -> bool:
        return not self.is_over and self._clock() >= self._next_s

    def work(self, copier: Copier) -> int:
        """Copy a few more. Returns how many came."""
        if self._waiting is None:
            self._end_s = self._clock() + self._limits.seconds
            most = self._limits.most_bytes // self._record_bytes
            self._waiting = list(reversed(self._choose(most)))
        some = [self._waiting.pop() for _ in range(min(_BLOCKS_AT_ONCE, len(self._waiting)))]
        if not some:
            return 0
        buffers = [np.empty(self._record_bytes, np.uint8) for _ in some]
        found = copier.get(self._source, [entry.key for entry in some], buffers)
        records = [
            Record(entry.key, buffer, entry.origin)
            for entry, buffer, is_there in zip(some, buffers, found, strict=True)
            if is_there and is_sound(buffer, self._identity, entry.key)
        ]
        stored = copier.put(self.target, records).stored
        self._unused.update(stored)
        self._next_s = self._clock() + len(some) * self._record_bytes / self._limits.bytes_per_s
        return len(stored)

    def see_used(self, keys: Iterable[BlockHash]) -> int:
        """Requests found these. How many of them came by a warm start, each counted once."""
        if not self._unused:
            return 0
        used = self._unused.intersection(keys)
        self._unused -= used
        return len(used)
