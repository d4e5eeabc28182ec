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
from typing import Final, NamedTuple

BEAT_S: Final = 0.5

_FORMAT: Final = struct.Struct("<QQ")  # beats so far; of these, since the loop last moved


class Reading(NamedTuple):
    """Beats since the process began, and those since its loop last got on with something."""

    num_beats: int
    num_stuck: int


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
    there is nothing to do.
    """

    def __init__(self, memory: PulseMemory, beat_s: float = BEAT_S) -> None:
        self._memory = memory
        self._beat_s = beat_s
        self._num_moves = 0
        self._is_resting = True  # nothing is known of a loop before it first moves
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="pulse").start()

    def move(self) -> None:
        self._num_moves += 1
        self._is_resting = False

    def rest(self) -> None:
        self._is_resting = True

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        num_beats = num_stuck = num_moves = 0
        while True:
            is_stuck = not self._is_resting and num_moves == self._num_moves
            num_stuck = num_stuck + 1 if is_stuck else 0
            num_moves = self._num_moves
            num_beats += 1
            self._memory.write(Reading(num_beats, num_stuck))
            if self._ended.wait(self._beat_s):
                return
