"""How long something took, counted in buckets: cheap to add to, to send on and to sum."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final, Self

import msgspec

_FIRST_S: Final = 1e-5
EDGES_S: Final = tuple(_FIRST_S * 2**n for n in range(22))  # 10 us to 21 s
_NO_COUNTS: Final = (0,) * (len(EDGES_S) + 1)  # the last: longer than any


class LatencyCounts(msgspec.Struct, frozen=True, array_like=True):
    """Bucket n counts what took more than EDGES_S[n - 1] and at most EDGES_S[n]. They add up, also
    by `sum`."""

    counts: tuple[int, ...] = _NO_COUNTS

    @classmethod
    def of(cls, seconds: float) -> Self:
        """One."""
        place = bisect_left(EDGES_S, seconds)
        return cls((*_NO_COUNTS[:place], 1, *_NO_COUNTS[place + 1 :]))

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile_s(self, share: float) -> float | None:
        """At most so long took this share (0 to 1) of them, as if those of a bucket were spread
        evenly over it: right within a factor of two. None if there are none."""
        if not self.count:
            return None
        wanted = share * self.count
        place = bisect_left(tuple(accumulate(self.counts)), wanted)
        below = sum(self.counts[:place])
        low: float = EDGES_S[place - 1] if place else 0.0
        high: float = EDGES_S[min(place, len(EDGES_S) - 1)]
        part = (wanted - below) / self.counts[place] if self.counts[place] else 0.0
        return low + (high - low) * part

    def __add__(self, other: LatencyCounts) -> LatencyCounts:
        return LatencyCounts(tuple(map(int.__add__, self.counts, other.counts)))

    def __radd__(self, other: int) -> LatencyCounts:
        """What `sum` starts with."""
        assert other == 0
        return self
