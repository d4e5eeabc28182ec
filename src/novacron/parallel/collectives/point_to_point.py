"""What collective operations are built on: sending to one rank, and receiving from one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class PointToPoint(Protocol):
    """This rank among `size`. What one rank sends another arrives whole and in order; sending
    copies the tensor and does not wait for whoever receives, so no order of calls can lock up.
    Raises ConnectionError once another rank is lost."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def send(self, to: int, x: Tensor) -> None: ...

    def receive(self, source: int, out: Tensor) -> None:
        """Fill `out`, which has the shape and type of what was sent."""
        ...
