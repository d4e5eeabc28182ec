"""Which slice of a dimension a rank holds: plain arithmetic, no process group needed.

Layers take a ParallelGroup and never ask for a global rank, so that rank 1 of 4 can be built and
loaded in a unit test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParallelGroup:
    """Rank `rank` of `size` ranks that share the work of a layer."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.size

    def slice_of(self, length: int) -> slice:
        """This rank's part of a dimension of `length`, which `size` must divide."""
        part = self.share_of(length)
        return slice(self.rank * part, (self.rank + 1) * part)

    def range_of(self, length: int) -> range:
        """This rank's part of a dimension that need not divide: parts differ by one at most."""
        return range(self.rank * length // self.size, (self.rank + 1) * length // self.size)

    def share_of(self, length: int) -> int:
        """How many of `length` items each rank holds."""
        if length % self.size:
            raise ValueError(f"{length} cannot be divided over {self.size} ranks")
        return length // self.size


SINGLE = ParallelGroup()
