"""RamPlaces: which record of a RAM tier lies where, and who leaves for whom. Pure.

A new record gets a free slot if there is one, and the policy hears of it later, in small pieces
(`catch_up`), which also have some slots free for what comes next. So a store waits for the policy
only if more comes at once than slots are free.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, KeysView, Sequence
from typing import Final, NamedTuple

from novacron.kv_tiers.eviction.choice import PolicyConfig
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.residents import Residents, free_ahead
from novacron.kv_tiers.tier import NewBlock
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin

NOWHERE: Final = -1


class Left(NamedTuple):
    """A record that left to make room, and the slot where it still lies; NOWHERE if it does not."""

    key: BlockHash
    slot: int


class RamPlaces:
    """Of `num_slots`. `may_grow`: whether slots may be given that took no memory so far. Records
    that `protection` keeps do not leave to make room, nor do those whose slots are kept (`keep`).
    What comes and goes, `protection` hears here."""

    def __init__(self, num_slots: int, policy: PolicyConfig, protection: Protection) -> None:
        self.may_grow = True
        self._slots: dict[BlockHash, int] = {}
        self._unused = list(range(num_slots - 1, -1, -1))
        self._free: list[int] = []
        self._most_free = free_ahead(num_slots)
        self._kept: set[int] = set()  # slots that somebody reads or writes
        self._free_later: set[int] = set()  # of these: their records are gone
        self._is_stuck = False  # nothing may leave, until something comes or goes
        self._residents = Residents(num_slots, policy, protection, self._is_kept)

    @property
    def keys(self) -> KeysView[BlockHash]:
        """Of all records."""
        return self._slots.keys()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def num_regretted(self) -> int:
        return self._residents.num_regretted

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        return self._residents.num_untold > 0 or (self._num_missing > 0 and not self._is_stuck)

    def slots_of(self, keys: Iterable[BlockHash]) -> list[int]:
        """NOWHERE: it has none."""
        return [self._slots.get(key, NOWHERE) for key in keys]

    def recall(self, key: BlockHash) -> Block | None:
        """What is remembered of a record that has left."""
        return self._residents.recall(key)

    def give(
        self, blocks: Sequence[NewBlock], now_s: float, unfinished: Container[int] = ()
    ) -> tuple[list[int], list[Left]]:
        """Have slots for those that are new and worth it. Returns the slot of each block, NOWHERE
        of others, and what leaves for them. One whose slot is `unfinished` gets another one, as
        nobody knows how that will end."""
        self._is_stuck = False
        gone = self._residents.expired(now_s)
        self._free += [self._slots.pop(key) for key in gone]
        left = [Left(key, NOWHERE) for key in gone]
        refused: set[BlockHash] = set()
        given: dict[BlockHash, int] = {}  # and the block's place among all
        for place, block in enumerate(blocks):
            key, origin = block.key, block.origin
            if (was := self._slots.get(key)) is not None:
                if was in unfinished and (slot := self._free_slot()) is not None:
                    self._free_later.add(was)
                    self._slots[key] = slot
                    given[key] = place
                continue
            if origin.parent in refused:  # of no use without it
                refused.add(key)
                continue
            slot = self._free_slot()
            if slot is None:
                slot = self._slot_for(key, origin, left, given, now_s)
            else:
                self._residents.come(key, origin, now_s)
            if slot is None:
                refused.add(key)
            else:
                self._slots[key] = slot
                given[key] = place
        slots = [NOWHERE] * len(blocks)
        for key, place in given.items():
            slots[place] = self._slots.get(key, NOWHERE)  # unless a later one has taken it
        return slots, left

    def keep(self, slots: Iterable[int]) -> None:
        """Somebody reads or writes there: nobody else gets these until `release`."""
        self._kept.update(slots)

    def release(self, slots: Sequence[int]) -> None:
        self._kept.difference_update(slots)
        if self._free_later:
            self._free += self._free_later.intersection(slots)
            self._free_later.difference_update(slots)

    def catch_up(self, most: int, now_s: float) -> list[Left]:
        """Tell the policy of so many that came, then have so many slots free ahead of need. The
        slots of what left are free when whoever looks at them gives them back (`put_back`)."""
        self._residents.tell(most)
        if self._residents.num_untold:
            return []
        return self.evict(min(most, self._num_missing), now_s)

    def evict(self, count: int, now_s: float) -> list[Left]:
        """Have so many leave, if there are as many that may; as in `catch_up`."""
        left: list[Left] = []
        while len(left) < count:
            key = self._residents.evict(now_s)
            if key is None:
                self._is_stuck = True
                break
            left.append(Left(key, self._slots.pop(key)))
        return left

    def put_back(self, slots: Iterable[int]) -> None:
        """These are free."""
        self._free += slots

    def take_free(self, most: int) -> list[int]:
        """Free slots that shall be so no more."""
        slots, self._free = self._free[:most], self._free[most:]
        return slots

    def put_unused(self, slots: Iterable[int]) -> None:
        """These take no memory any more."""
        self._unused += slots

    def touch(self, keys: Iterable[BlockHash], now_s: float) -> list[bool]:
        """Requests found these. Which of them are there."""
        asked = list(keys)
        self._residents.touch(asked, now_s)
        return [key in self._slots for key in asked]

    def remove(self, keys: Iterable[BlockHash]) -> None:
        self._is_stuck = False
        for key in keys:
            slot = self._slots.pop(key, None)
            if slot is None:
                continue
            self._residents.remove(key)
            if slot in self._kept:
                self._free_later.add(slot)
            else:
                self._free.append(slot)

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        return self._residents.keys_of(scope)

    def clear(self) -> None:
        """Nothing is there, and nothing will be."""
        self._slots.clear()
        self._residents.clear()
        self._free.clear()
        self._unused.clear()

    @property
    def _num_missing(self) -> int:
        """Slots that should be free and are not."""
        return self._most_free - len(self._free) - (len(self._unused) if self.may_grow else 0)

    def _is_kept(self, key: BlockHash) -> bool:
        return self._slots.get(key) in self._kept

    def _free_slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        return self._unused.pop() if self._unused and self.may_grow else None

    def _slot_for(
        self,
        key: BlockHash,
        origin: BlockOrigin,
        left: list[Left],
        given: Container[BlockHash],
        now_s: float,
    ) -> int | None:
        """That of a record which leaves. None: the new one is worth the least, or all others are
        kept."""
        self._residents.insert(key, origin, now_s)
        victim = self._residents.evict(now_s)
        if victim is None:
            self._residents.remove(key)
        if victim is None or victim == key:
            return None
        slot = self._slots.pop(victim)
        left.append(Left(victim, NOWHERE if victim in given else slot))
        return slot
