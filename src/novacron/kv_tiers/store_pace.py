"""StorePace: when blocks may be stored. Knows no blocks and starts nothing.

In pauses of the engine always; while steps follow each other for a share of the time, in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_SLOWER: Final = 4
_PAUSE_S: Final = 0.02  # without a step: the engine has nothing to do
_LONGEST_SLEEP_S: Final = 0.05  # then there may be a pause


class StorePace:
    """`share` is that of one core that stores may take while steps follow each other, measured as
    what the storing thread computes (`cpu_clock`), which may wait for a core for long. With 1 they
    need not wait for pauses, but for loads all the same: both want the interpreter's lock. What is
    told of steps comes from their thread, of loads from one at a time, and the rest from the thread
    that stores."""

    def __init__(
        self,
        share: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._share = share
        self.is_slow = False  # memory or disk is short: a quarter of the share
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._num_computing = self._num_loading = 0
        self._last_step_s = -_PAUSE_S
        self._next_turn_s = 0.0
        self._turn_began_s = 0.0

    def begin_loads(self, count: int) -> None:
        """Somebody waits for blocks that come from this machine."""
        self._num_loading += count

    def end_load(self) -> None:
        self._num_loading -= 1

    def forget_steps(self) -> None:
        """Those that have begun will not end."""
        self._num_computing = 0
        self._last_step_s = self._clock()

    def begin_step(self) -> None:
        """Another one may be in flight still."""
        self._num_computing += 1

    def end_step(self) -> None:
        self._num_computing -= 1
        self._last_step_s = self._clock()

    @property
    def is_time(self) -> bool:
        if self._num_loading > 0:
            return False
        return self.is_paused or self._clock() >= self._next_turn_s

    @property
    def patience_s(self) -> float:
        """How long to sleep before looking again."""
        return min(_LONGEST_SLEEP_S, max(_PAUSE_S, self._next_turn_s - self._clock()))

    def begin_turn(self) -> None:
        self._turn_began_s = self._cpu_clock()

    def end_turn(self) -> None:
        share = self._share / _SLOWER if self.is_slow else self._share
        if share < 1:
            took_s = self._cpu_clock() - self._turn_began_s
            self._next_turn_s = self._clock() + took_s / share

    @property
    def is_paused(self) -> bool:
        """Whether the engine has nothing to do."""
        return self._num_computing == 0 and self._clock() - self._last_step_s >= _PAUSE_S
