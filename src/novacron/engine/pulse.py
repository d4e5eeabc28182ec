"""The pulse of an engine process, in memory that it shares with its client: a sign of life that
costs neither a message, and so comes beside steps of any length.

Where the process is stopped, or something keeps its interpreter for ever, the pulse stands still.
Where only the loop hangs, the pulse goes on and says for how long the loop has done one thing.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

BEAT_S: Final = 0.5

_FORMAT: Final = struct.Struct("<QQQ")


class Reading(NamedTuple):
    """Beats since the process began, and those since its loop last got on with something. Of
    `lost_ranks`, bit N stands for rank N."""

    num_beats: int
    num_stuck: int
    lost_ranks: int = 0


def ranks_of(bits: int) -> tuple[int, ...]:
    """Of Reading.lost_ranks."""
    return tuple(rank for rank in range(bits.bit_length()) if bits >> rank & 1)


class PulseMemory:
    """One page that two processes see."""

    def __init__(self, descriptor: int | None = None) -> None:
        """`descriptor`: that of one made in another process."""
        if descriptor is None:
            descriptor = os.memfd_create("novacron-pulse")
            os.truncate(descriptor, mmap.PAGESIZE)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)

    def write(self, reading: Reading) -> None:
        _FORMAT.pack_into(self._memory, 0, *reading)

    def read(self) -> Reading:
        return Reading(*_FORMAT.unpack_from(self._memory))

    def close_descriptor(self) -> None:
        """The memory stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Pulse:
    """Beats from a thread of its own from when it is made to the end of the process.

    The loop that it tells of calls `move` whenever it goes on, and says when it `rests` because
    there is nothing to do. `lost_ranks` tells which do not compute with the others; `look` has that
    told at once.
    """

    def __init__(self, memory: PulseMemory, beat_s: float = BEAT_S) -> None:
        self._memory = memory
        self._beat_s = beat_s
        self._num_moves = 0
        self._is_resting = True  # nothing is known of a loop before it first moves
        self._last = Reading(0, 0)
        self.lost_ranks: Callable[[], int] = lambda: 0
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="pulse").start()

    def move(self) -> None:
        self._num_moves += 1
        self._is_resting = False

    def rest(self) -> None:
        self._is_resting = True

    def look(self) -> None:
        self._write(self._last)

    def end(self) -> None:
        self._ended.set()

    def _write(self, reading: Reading) -> None:
        self._last = reading
        self._memory.write(reading._replace(lost_ranks=self.lost_ranks()))

    def _run(self) -> None:
        num_beats = num_stuck = num_moves = 0
        while True:
            is_stuck = not self._is_resting and num_moves == self._num_moves
            num_stuck = num_stuck + 1 if is_stuck else 0
            num_moves = self._num_moves
            num_beats += 1
            self._write(Reading(num_beats, num_stuck))
            if self._ended.wait(self._beat_s):
                return
