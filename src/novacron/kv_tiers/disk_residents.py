"""DiskResidents: which of a disk tier's blocks stay: its policy and what is protected.

What a process finds on disk its policy gets to know with the uses that earlier ones counted, a few
at a time, because there may be hundreds of thousands. Until then such blocks are found, but do not
give way.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from novacron.kv_tiers import segment_table
from novacron.kv_tiers.disk_index import Changes, DiskIndex, Segment
from novacron.kv_tiers.eviction.choice import PolicyConfig
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.residents import Residents
from novacron.kv_tiers.segment_table import Entry
from novacron.kv_tiers.tier import Record
from novacron.records.block import BlockHash

_WRITE_USES_EVERY_S: Final = 10.0
_RESTORED_AT_ONCE: Final = 256


class DiskResidents:
    """Of a tier with room for `num_places` blocks. Times are Unix time; if that goes back, it is
    taken to stand still."""

    def __init__(
        self, index: DiskIndex, protection: Protection, policy: PolicyConfig, num_places: int
    ) -> None:
        self._index = index
        self._residents = Residents(num_places, policy, protection, self._stays)
        self._found: deque[Entry] = deque()
        self._dropped: list[BlockHash] = []
        self._coming: set[BlockHash] = set()
        self._is_busy: Callable[[Segment], bool] = lambda one: False
        self._num_regretted = 0
        self._last_s = 0.0

    def see(self, changes: Changes) -> None:
        """Others have put blocks there, or taken some away."""
        self._found.extend(sorted(changes.found, key=lambda entry: entry.origin.depth))
        for key in changes.gone:
            self._dropped.append(key)
            self._residents.remove(key)

    @property
    def num_untold(self) -> int:
        return self._residents.num_untold

    def come(self, record: Record, now_s: float) -> None:
        """It takes no other's place; the policy hears of it later (`tell`)."""
        self._residents.come(record.key, record.origin, self._at(now_s))

    def tell(self, most: int) -> None:
        self._restore_some()
        self._residents.tell(most)

    def insert(self, record: Record, now_s: float) -> None:
        now_s = self._at(now_s)
        self._restore_some()
        self._residents.insert(record.key, record.origin, now_s)

    def is_coming(self, key: BlockHash) -> None:
        """It has a place and is not written yet: it does not give way until `have_come`."""
        self._coming.add(key)

    def have_come(self) -> None:
        self._coming.clear()

    def evict(self, now_s: float, is_busy: Callable[[Segment], bool]) -> BlockHash | None:
        """The block that shall leave next, of segments that are not busy."""
        self._is_busy, now_s = is_busy, self._at(now_s)
        victim = self._residents.evict(now_s)
        while victim is None and self._found:
            self._restore_some()
            victim = self._residents.evict(now_s)
        if victim is not None:
            self._dropped.append(victim)
        return victim

    def recall(self, key: BlockHash) -> Block | None:
        """What is remembered of a block that `evict` chose."""
        return self._residents.recall(key)

    def expired(self, now_s: float) -> list[tuple[Segment, Entry]]:
        """Blocks that need not stay though there is room; they are not known any more."""
        now_s = self._at(now_s)
        self._restore_some()
        keys = self._residents.expired(now_s)
        self._dropped += keys
        return [where for key in keys if (where := self.remove(key)) is not None]

    def remove(self, key: BlockHash) -> tuple[Segment, Entry] | None:
        """It is gone, or going. Returns where it was."""
        self._residents.remove(key)
        return self._index.remove(key)

    def touch(self, keys: Iterable[BlockHash], now_s: float) -> list[bool]:
        """A request found these here or above. Which are here."""
        now_s = self._at(now_s)
        self._restore_some()
        found, asked = [], list(keys)
        self._residents.touch(asked, now_s)
        for key in asked:
            where = self._index.where(key)
            found.append(where is not None)
            if where is not None:
                one, entry = where
                entry.used_s = now_s
                entry.num_uses += 1
                one.used[key] = entry
                if now_s - one.touched_s > _WRITE_USES_EVERY_S:
                    one.touched_s = now_s
                    _write_uses(one)
        return found

    def write_uses(self) -> None:
        for one in self._index.segments.values():
            if one.used:
                _write_uses(one)

    def is_protected(self, key: BlockHash) -> bool:
        return self._residents.is_protected(key)

    def take_dropped(self) -> list[BlockHash]:
        """What has left since the last time, each once."""
        dropped, self._dropped = self._dropped, []
        return list(dict.fromkeys(dropped))

    def tell_later(self, dropped: Iterable[BlockHash]) -> None:
        """What `take_dropped` returned could not be told."""
        self._dropped = [*dropped, *self._dropped]

    def take_regrets(self) -> int:
        before, self._num_regretted = self._num_regretted, self._residents.num_regretted
        return self._num_regretted - before

    def _restore_some(self) -> None:
        for _ in range(min(len(self._found), _RESTORED_AT_ONCE)):
            entry = self._found.popleft()
            where = self._index.where(entry.key)
            if where is not None and where[1] is entry:
                self._residents.restore(
                    entry.key, entry.origin, entry.used_s, entry.num_uses, self._last_s
                )

    def _at(self, now_s: float) -> float:
        self._last_s = max(self._last_s, now_s)
        return self._last_s

    def _stays(self, key: BlockHash) -> bool:
        if key in self._coming:
            return True
        where = self._index.where(key)
        return where is not None and self._is_busy(where[0])


def _write_uses(one: Segment) -> None:
    """Tell the file of the uses that it does not know; its time is that of its last use."""
    used, one.used = one.used, {}
    with contextlib.suppress(OSError):  # gone: reading will tell
        fd = os.open(one.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for entry in used.values():
                segment_table.write_uses(fd, entry)
            os.utime(fd)
        finally:
            os.close(fd)
