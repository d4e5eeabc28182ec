"""Suspects: which call, if any, kills the engines that it runs on. Pure; for RecoveringClient.

Most deaths have nothing to do with what ran. So after a death everybody goes on. Whoever dies again
without having got anywhere in between is a suspect; suspects are tried one at a time, and nobody
else starts meanwhile. Who then gets somewhere is cleared. Who takes the engine along twice in a
row, alone and at the same place, is guilty: tokens are the same in every life, so what kills at a
place does so whenever it is reached, and what comes from outside hardly hits one place twice. An
engine that was killed did not crash, which points to the outside: then it takes a third time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

PROOF_TOKENS: Final = 16  # more than an engine has computed and not yet told of, as a rule
_SAME_PLACE_TOKENS: Final = 2
_MOST_DEATHS: Final = 2
_MOST_CRASHES_ALONE: Final = 2
_MOST_KILLS_ALONE: Final = 3

Tokens = Mapping[str, int]  # of the requests of a call that have not ended, by id


@dataclass(slots=True)
class _Record:
    """`num_deaths` of each request are those since it last got somewhere, `places` the most tokens
    that it had at one. `last_place`: the tokens at the last death; `alone_place`: at the last one
    of the call alone; `num_alone`: how many of those there were in a row, at that place."""

    places: dict[str, int] = field(default_factory=dict)
    num_deaths: dict[str, int] = field(default_factory=dict)
    last_place: Tokens = field(default_factory=dict)
    alone_place: Tokens = field(default_factory=dict)
    num_alone: int = 0
    was_killed: bool = False  # the last time
    before: _Record | None = None  # the last time, if that may yet turn out to be nobody's fault
    deaths_at_start: int = 0
    is_unjudged: bool = False
    is_suspicious: bool = False

    def copy(self) -> _Record:
        return replace(self, places=dict(self.places), num_deaths=dict(self.num_deaths))


class Suspects:
    """The calls of one client, by any name that is unique among them.

    A call starts, and then either dies with its engine, or ends. Deaths of several calls belong
    together if they come before the first of them is judged.
    """

    def __init__(self) -> None:
        self._num_deaths = 0
        self._records: dict[str, _Record] = {}
        self._suspects: dict[str, None] = {}  # in order of suspicion

    @property
    def is_anyone(self) -> bool:
        """Whether somebody is suspected: then only `may_start` says who may."""
        return bool(self._suspects)

    def may_start(self, call: str) -> bool:
        """Everybody, or the suspect whose turn it is."""
        return not self._suspects or next(iter(self._suspects)) == call

    def is_suspect(self, call: str) -> bool:
        return call in self._suspects

    def start(self, call: str) -> None:
        """It is given to an engine."""
        record = self._records.setdefault(call, _Record())
        record.deaths_at_start = self._num_deaths

    def see_death(
        self,
        call: str,
        tokens: Tokens,
        *,
        was_killed: bool = False,
        may_be_withdrawn: bool = False,
    ) -> None:
        """It ran on an engine that has died. `tokens` are those that had come by then."""
        record = self._records[call]
        record.before = record.copy() if may_be_withdrawn else None
        self._num_deaths += 1
        for name, num in tokens.items():
            place = record.places.get(name, 0)
            got_somewhere = num - place >= PROOF_TOKENS
            record.num_deaths[name] = 1 + (0 if got_somewhere else record.num_deaths.get(name, 0))
            record.places[name] = max(num, place)
        record.last_place = dict(tokens)
        record.was_killed = was_killed
        record.is_unjudged = True
        record.is_suspicious |= (
            max((record.num_deaths[name] for name in tokens), default=0) >= _MOST_DEATHS
        )
        if record.is_suspicious:
            self._suspects[call] = None

    def withdraw(self) -> None:
        """The last death was nobody's fault: as if those that may be withdrawn, and have not been
        judged, had not been seen."""
        for call, record in tuple(self._records.items()):
            if record.before is None or not record.is_unjudged:
                continue
            self._records[call] = record.before
            if not record.before.is_suspicious:
                self._suspects.pop(call, None)

    def judge(self, call: str) -> bool:
        """Whether it is guilty of the death it saw last. To be asked before it starts again, and
        once all who died with it have been seen to."""
        record = self._records.get(call)
        if record is None or not record.is_unjudged:
            return False
        record.is_unjudged = False
        if self._num_deaths - record.deaths_at_start != 1:  # others died with it
            return False
        before, record.alone_place = record.alone_place, record.last_place
        is_same_place = any(
            abs(num - before[name]) <= _SAME_PLACE_TOKENS
            for name, num in record.last_place.items()
            if name in before
        )
        record.num_alone = record.num_alone + 1 if is_same_place else 1
        most = _MOST_KILLS_ALONE if record.was_killed else _MOST_CRASHES_ALONE
        return record.num_alone >= most

    def is_cleared_by(self, call: str, tokens: Tokens) -> bool:
        """Whether what a suspect has got by now proves that it did not kill."""
        places = self._records[call].places
        return all(num - places.get(name, 0) >= PROOF_TOKENS for name, num in tokens.items())

    def forget(self, call: str) -> bool:
        """It is cleared, has ended, or is not wanted any more. Whether others may start now."""
        self._records.pop(call, None)
        if call not in self._suspects:
            return False
        del self._suspects[call]
        return True
