"""PendingStores: the blocks that wait to be stored, as notes with their numbers.

No note holds a block: whoever is about to write to one gives its note up. A copy counts only if the
note was not given up until the copy was made, which `confirm` tells.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from novacron.records.block_moves import StoreBlock


@dataclass(eq=False, slots=True)
class Note:
    """A block that waits to be stored. Parked: rather while a step waits than not. Given up: its
    content is about to change."""

    order: StoreBlock
    is_parked: bool = False
    is_given_up: bool = False


class PendingStores:
    """Oldest first. From two threads: that of the steps adds and gives up, the other takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: deque[Note] = deque()
        self._note_of_block: dict[int, Note] = {}  # waiting, or being copied
        self.num_dropped = 0

    def __len__(self) -> int:
        return len(self._notes)

    @property
    def has_blocks(self) -> bool:
        """Whether `give_up` may find a note."""
        return bool(self._note_of_block)

    def add(self, orders: Iterable[StoreBlock]) -> None:
        notes = [Note(order) for order in orders]
        with self._lock:
            self._note_of_block.update((note.order.block_id, note) for note in notes)
            self._notes.extend(notes)

    def park(self, block_ids: Iterable[int]) -> None:
        """These blocks, as far as they wait, must not be lost."""
        with self._lock:
            for block_id in block_ids:
                note = self._note_of_block.get(block_id)
                if note is not None:
                    note.is_parked = True

    def give_up(self, block_ids: Iterable[int]) -> list[Note]:
        """These blocks are about to be written to. To be called before that. Returns the notes that
        were parked: whoever gives them up has to store their blocks."""
        parked: list[Note] = []
        if not self._note_of_block:
            return parked
        with self._lock:
            for block_id in block_ids:
                note = self._note_of_block.pop(block_id, None)
                if note is not None:
                    note.is_given_up = True
                    if note.is_parked:
                        parked.append(note)
        return parked

    def take(self, most: int) -> list[Note]:
        """The oldest notes, those given up among them."""
        with self._lock:
            return [self._notes.popleft() for _ in range(min(most, len(self._notes)))]

    def confirm(self, notes: Sequence[Note]) -> list[Note]:
        """Those whose blocks still hold what they held when the notes were taken: copies that were
        made since are whole. The others are counted as dropped."""
        with self._lock:
            whole = [note for note in notes if not note.is_given_up]
            for note in whole:
                if self._note_of_block.get(note.order.block_id) is note:
                    del self._note_of_block[note.order.block_id]
            self.num_dropped += sum(note.is_given_up and not note.is_parked for note in notes)
            return whole
