"""RankTraffic: what one rank counts of its own, in memory that rank 0 reads.

Only the rank itself writes there, one number at a time, so a reader sees each of them whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np

COUNTERS: Final = 5  # of 8 bytes


class Traffic(NamedTuple):
    """Totals. A meeting is a sum or a concatenation over ranks; steps take `step_ns` in all,
    waiting included."""

    num_steps: int = 0
    num_meetings: int = 0
    sent_bytes: int = 0
    waited_ns: int = 0
    step_ns: int = 0


class RankTraffic:
    """`row`: COUNTERS integers, zero before the rank first counts; none given: its own."""

    def __init__(self, row: Any = None) -> None:
        self._row = np.zeros(COUNTERS, np.int64) if row is None else row
        self._met = (0, 0, 0)

    def see_step(self) -> None:
        self._row[0] += 1

    def see_time(self, nanoseconds: int) -> None:
        """Of a step, or a part of one."""
        self._row[4] += nanoseconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The same of what is done meanwhile."""
        began_ns = time.monotonic_ns()
        yield
        self.see_time(time.monotonic_ns() - began_ns)

    def see_meeting(self) -> None:
        self._row[1] += 1

    def see_sent(self, num_bytes: int) -> None:
        self._row[2] += num_bytes

    def see_wait(self, nanoseconds: int) -> None:
        self._row[3] += nanoseconds

    def see_meetings(self, num_meetings: int, sent_bytes: int, waited_ns: int) -> None:
        """Totals that kernels have counted by now."""
        now = (num_meetings, sent_bytes, waited_ns)
        self._row[1:4] += [after - before for after, before in zip(now, self._met, strict=True)]
        self._met = now

    def go_on_from(self, num_meetings: int, sent_bytes: int, waited_ns: int) -> None:
        """These totals of `see_meetings` were counted before, by who had this rank's place."""
        self._met = (num_meetings, sent_bytes, waited_ns)

    def read(self) -> Traffic:
        return Traffic(*map(int, self._row))
