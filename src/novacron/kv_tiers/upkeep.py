"""Upkeep: what is done about tiers beside storing and loading, in small pieces, when there is time.

Blocks that left RAM go on to the disk that lacks them, those that left the disk to a tier on
another machine. The policies of RAM and disk hear what came, and some places of a full tier are
made free ahead of need: what is stored waits for neither. After a start RAM is filled with what was
used most, in pauses. And the machine's memory and disk are looked at: where they run out, tiers
stop growing, and RAM is given back.
Called by the thread that stores, so steps wait for none of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from novacron.kv_tiers.demotion import Demotion
from novacron.kv_tiers.eviction.pressure import SCARCITY, Action, Pressure, actions_at
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.kv_tiers.warm_start import WarmStart
from novacron.records.block import BlockHash

_LOOK_EVERY_S: Final = 1.0
_DEMOTED_AT_ONCE: Final = 8
_GIVEN_BACK_AT_ONCE: Final = 64


class LocalTier(Protocol):
    """A tier of this machine. Its growth can be held, and what its policy has to hear and decide
    can wait (`catch_up`, which returns the blocks that left)."""

    may_grow: bool

    @property
    def is_behind(self) -> bool: ...
    def catch_up(self) -> Sequence[BlockHash]: ...


class RamArena(LocalTier, Protocol):
    """One that gives memory back, and returns the blocks that left for that."""

    def give_back(self, count: int) -> Sequence[BlockHash]: ...


@dataclass(frozen=True)
class Watched:
    """A tier and its place among all: `fraction_used` is of what it is made of. `levels` are
    those of its own on this machine, `arenas` those of them in RAM."""

    place: int
    kind: str
    fraction_used: Callable[[], float]
    levels: Sequence[LocalTier] = ()
    arenas: Sequence[RamArena] = ()


@dataclass(frozen=True)
class Demoting:
    """Where blocks go on to. With `asks_first` only what that tier does not have, which costs a
    trip: nobody here knows what others have put there."""

    demotion: Demotion
    to: int
    asks_first: bool = False


class Desk(Protocol):
    """Whoever does the work: stores, tells what has left, and what is under pressure."""

    def put(self, place: int, records: Sequence[Record]) -> Put: ...
    def has(self, place: int, keys: Sequence[BlockHash]) -> Sequence[bool]: ...
    def tell_left(self, place: int, keys: Sequence[BlockHash]) -> None: ...
    def tell_pressure(self, place: int, level: Pressure) -> None: ...
    def count(self, place: int, **more: int) -> None: ...
    def get(
        self, place: int, keys: Sequence[BlockHash], into: Sequence[Bytes]
    ) -> Sequence[bool]: ...


class Upkeep:
    """`stores_less` and `holds_prefetch` are what the pressure asks of others."""

    def __init__(
        self,
        watched: Sequence[Watched] = (),
        demotions: Sequence[Demoting] = (),
        *,
        warm_start: WarmStart | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = tuple(watched)
        self._demotions = tuple(demotions)
        self._warm_start = warm_start
        self._clock = clock
        self._levels: dict[int, Pressure] = {one.place: "low" for one in watched}
        self._next_look_s = float("-inf")
        self.stores_less = False
        self.holds_prefetch = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done before `patience_s` has passed."""
        if any(one.demotion for one in self._demotions):
            return False
        if any(level.is_behind for one in self._watched for level in one.levels):
            return False
        if self._warm_start is not None and not self._warm_start.is_over:
            return False
        return not self._watched or self._clock() < self._next_look_s

    @property
    def patience_s(self) -> float | None:
        """None: until something else is."""
        return max(0.0, self._next_look_s - self._clock()) if self._watched else None

    def work(self, desk: Desk, *, is_paused: bool, is_busy: bool = False) -> None:
        """One piece of it. `is_paused`: the engine has nothing to do. `is_busy`: blocks were
        stored right now; tiers catch up when none are."""
        warm = self._warm_start
        if warm is not None and is_paused and warm.is_time and not self.holds_prefetch:
            desk.count(warm.target, num_warmed=warm.work(desk))
        for demoting in self._demotions:
            self._demote(desk, demoting)
        for one in self._watched if not is_busy else ():
            for level in one.levels:
                desk.tell_left(one.place, level.catch_up())
        if self._clock() >= self._next_look_s:
            self._next_look_s = self._clock() + _LOOK_EVERY_S
            self._look(desk)

    def _demote(self, desk: Desk, one: Demoting) -> None:
        records = one.demotion.take(_DEMOTED_AT_ONCE)
        if records and one.asks_first:
            has = desk.has(one.to, [record.key for record in records])
            records = [r for r, is_there in zip(records, has, strict=True) if not is_there]
        if records:
            desk.count(one.to, num_demoted=len(desk.put(one.to, records).stored))

    def see_used(self, desk: Desk, keys: Sequence[BlockHash]) -> None:
        """Requests found these."""
        if self._warm_start is not None:
            count = self._warm_start.see_used(keys)
            if count:
                desk.count(self._warm_start.target, num_warm_used=count)

    def _look(self, desk: Desk) -> None:
        wanted: set[Action] = set()
        for one in self._watched:
            was = self._levels[one.place]
            level = SCARCITY[one.kind].level(one.fraction_used(), was)
            actions = actions_at(one.kind, level)
            wanted |= actions
            for own in one.levels:
                own.may_grow = "no growth" not in actions
            if "give back" in actions:
                for arena in one.arenas:
                    desk.tell_left(one.place, arena.give_back(_GIVEN_BACK_AT_ONCE))
            if level != was:
                self._levels[one.place] = level
                desk.tell_pressure(one.place, level)
        self.stores_less = "store less" in wanted
        self.holds_prefetch = "no prefetch" in wanted
