"""Reservations made ahead of calls, so that a call of a busy caller waits for no database.

Who calls often gets some reservations that are in the ledger before their calls come. Each of them
is one of a single call, and committed like any other: limits, restarts and other coordinators know
no difference, and a crash leaves them to be counted in full. One is made only where there is room
for many more, so that they keep no call of others out; one that no call has taken soon is given
back. Pure: times are told.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from novacron.accounts.posting import Entry, Outcome, Posting, Reserve, Settle
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish, allow
from novacron.errors import NovaCronError

KEPT_S: Final = 1.0  # and then given back; a changed quota is known by then
_LEAD_S: Final = 0.2  # calls of so long are reserved ahead: a few batches
_LOOK_EVERY_S: Final = 0.25
_MOST: Final = 128  # of one kind
_PROMPT_STEP: Final = 256  # prompts are alike up to so many tokens


@dataclass(eq=False)
class _Shelf:
    """Calls of one account that are alike, and the reservations there are for them, oldest first,
    each with the time until which it may be used."""

    account: Account
    wish: Wish
    entries: deque[tuple[Entry, float]] = field(default_factory=deque)
    num_coming: int = 0
    second: int = 0
    num_in_second: int = 0
    num_before: int = 0  # in the second before
    refused_until_s: float = 0.0  # until then nobody asks again

    def count(self, now_s: float) -> None:
        second = int(now_s)
        if second != self.second:
            self.num_before = self.num_in_second if second == self.second + 1 else 0
            self.second, self.num_in_second = second, 0
        self.num_in_second += 1

    @property
    def num_missing(self) -> int:
        """A single call in a second is no reason to expect another one."""
        a_second = max(self.num_in_second, self.num_before)
        wanted = min(_MOST, math.ceil(a_second * _LEAD_S)) if a_second > 1 else 0
        return max(0, wanted - len(self.entries) - self.num_coming)


class ReservationsAhead:
    """Those of one coordinator. `new_id` makes ids of reservations."""

    def __init__(self, new_id: Callable[[], str], kept_s: float = KEPT_S) -> None:
        self._new_id = new_id
        self._kept_s = kept_s
        self._shelves: dict[tuple[Account, Wish], _Shelf] = {}
        self._asked: dict[_Shelf, None] = {}  # since reservations were posted
        self._coming: dict[str, _Shelf] = {}
        self._looked_s = 0.0
        self.begins_to_want = False  # the last call was the first one that asked

    @property
    def wants(self) -> bool:
        """It is time for a batch, not for a hurried one."""
        return bool(self._asked)

    @property
    def look_again_s(self) -> float:
        """When some may be too old."""
        return self._looked_s + _LOOK_EVERY_S if self._shelves else math.inf

    def take(self, account: Account, wish: Wish, now_s: float) -> Entry | None:
        """A reservation for this call, if there is one; the call is counted. None as well for a
        call that is not allowed: the ledger itself says why."""
        self.begins_to_want = False
        kind = _kind_of(wish)
        if kind is None:
            return None
        shelf = self._shelves.get((account, kind))
        if shelf is None:
            shelf = self._shelves[account, kind] = _Shelf(account, kind)
        shelf.count(now_s)
        entry = _fitting(shelf, wish, now_s)
        if shelf.num_missing and now_s >= shelf.refused_until_s:
            self.begins_to_want = not self._asked
            self._asked[shelf] = None
        return entry

    def to_post(self, most: int) -> list[Reserve]:
        """What to reserve now. Whatever comes of it is to be `put`."""
        reserves: list[Reserve] = []
        for shelf in self._asked:
            for _ in range(min(shelf.num_missing, most - len(reserves))):
                reserve = Reserve(self._new_id(), shelf.account, shelf.wish, is_ahead=True)
                self._coming[reserve.id] = shelf
                shelf.num_coming += 1
                reserves.append(reserve)
        self._asked.clear()
        return reserves

    def put(
        self, postings: Sequence[Posting], outcomes: Sequence[Outcome], posted_s: float
    ) -> None:
        """What came of postings, of which some may be ours. A refusal is no error."""
        for posting, outcome in zip(postings, outcomes, strict=True):
            shelf = self._coming.pop(posting.id, None) if self._coming else None
            if shelf is not None:
                shelf.num_coming -= 1
                if isinstance(outcome, Entry):
                    shelf.entries.append((outcome, posted_s + self._kept_s))
                else:
                    shelf.refused_until_s = posted_s + self._kept_s

    def too_old(self, now_s: float) -> list[Settle]:
        """Those that nobody has taken in time, given back; inf: all. Looks now and then."""
        if now_s < self.look_again_s:
            return []
        self._looked_s = now_s
        unused = [end for shelf in self._shelves.values() for end in _given_back(shelf, now_s)]
        self._shelves = {
            kind: shelf
            for kind, shelf in self._shelves.items()
            if shelf.entries or shelf.num_coming or shelf.second + 2 > now_s
        }
        return unused

    def give_back(self, subject: str) -> list[Settle]:
        """All that this subject pays for: one of its calls finds no room."""
        own = (one for one in self._shelves.values() if subject in one.account.subjects)
        return [end for shelf in own for end in _given_back(shelf, math.inf)]


def _kind_of(wish: Wish) -> Wish | None:
    """The wish of a reservation that does for all calls like this one; None for those that are
    several requests, which are rare."""
    if len(wish.prompts) != 1:
        return None
    prompt = -(-wish.prompts[0] // _PROMPT_STEP) * _PROMPT_STEP
    return msgspec.structs.replace(wish, prompts=(prompt,))


def _fitting(shelf: _Shelf, wish: Wish, now_s: float) -> Entry | None:
    if not shelf.entries or shelf.entries[0][1] <= now_s:
        return None
    entry, _ = shelf.entries[0]
    try:
        allowed = allow(wish, entry.limits)
    except NovaCronError:
        return None
    if allowed.tokens > entry.tokens:
        return None
    shelf.entries.popleft()
    return msgspec.structs.replace(entry, answers=allowed.answers, limits=())


def _given_back(shelf: _Shelf, now_s: float) -> Iterator[Settle]:
    while shelf.entries and shelf.entries[0][1] <= now_s:
        entry, _ = shelf.entries.popleft()
        yield Settle(entry.id, shelf.account, None)
