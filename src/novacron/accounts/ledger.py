"""Ledger: reservations and their settlement for an event loop, posted batch by batch.

All that waits while a batch is posted is the next one, in one transaction, so that calls beside
each other share the cost of a commit. A reservation is granted only once it is committed. When the
database does not answer, reservations are refused, and ends of calls wait until it does; where it
is not known whether a reservation got through, its end is posted after it. For callers that call
again and again, reservations are made ahead (ahead.py), so that most calls wait for no batch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from secrets import token_hex
from typing import Final

from novacron.accounts.ahead import KEPT_S, ReservationsAhead
from novacron.accounts.book import Book
from novacron.accounts.posting import Entry, Outcome, Posting, Reserve, Settle, Usage
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.coordination.streams import StreamStart
from novacron.errors import DatabaseUnavailable, NovaCronError, QuotaExceeded

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 512
_PATIENCE_S: Final = 5.0
_LOOKS: Final = 10  # within the patience
_SETTLE_WITHIN_S: Final = 0.05  # ends of calls wait so long for company
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_RENEW_EVERY_S: Final = 10.0

Answer = asyncio.Future[Entry]
Item = tuple[Posting, Answer | None]


class Ledger:
    """Belongs to one event loop. Closes its book."""

    def __init__(
        self,
        book: Book,
        *,
        patience_s: float = _PATIENCE_S,
        renew_every_s: float = _RENEW_EVERY_S,
        kept_ahead_s: float = KEPT_S,
    ) -> None:
        """A call waits for its reservation for `patience_s`, and is refused then; little of that
        goes by while this process is stopped, as a machine may be. What is reserved ahead is used
        within `kept_ahead_s`."""
        self._book = book
        self._patience_s = patience_s
        self._renew_every_s = renew_every_s
        self._beginnings: deque[tuple[Reserve, Answer]] = deque()
        self._ends: deque[Settle] = deque()
        self._is_closing = False
        self._name = token_hex(12)  # of this ledger: no other makes the same ids
        self._numbers = count()  # in order, so that entries of a time lie together
        self._ahead = ReservationsAhead(self._new_id, kept_ahead_s)
        self.num_from_ahead = 0  # calls that waited for nothing
        self._news: asyncio.Future[None] | None = None  # while nothing is posted
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._working = asyncio.get_running_loop().create_task(self._work())

    async def reserve(
        self, account: Account, wish: Wish, stream: StreamStart | None = None
    ) -> Entry:
        """Raises QuotaExceeded, Forbidden, InvalidRequest, and DatabaseUnavailable in any doubt.
        The record of `stream` is there as soon as the reservation is.

        What is not settled, whoever is cancelled here settles.
        """
        if stream is None:
            entry = self._ahead.take(account, wish, time.monotonic())
            if self._ahead.begins_to_want:
                self._tell()
            if entry is not None:
                self.num_from_ahead += 1
                return entry
        try:
            return await self._reserve(account, wish, stream)
        except QuotaExceeded as error:
            unused = self._ahead.give_back(error.subject)
            if not unused:
                raise
            self._ends.extend(unused)  # they make room before the call is posted again
            return await self._reserve(account, wish, stream)

    async def _reserve(self, account: Account, wish: Wish, stream: StreamStart | None) -> Entry:
        reserve = Reserve(self._new_id(), account, wish, stream)
        answer: Answer = asyncio.get_running_loop().create_future()
        self._beginnings.append((reserve, answer))
        self._tell()
        try:
            return await _within(answer, self._patience_s)
        except TimeoutError:
            self.settle(reserve.id, account, None)
            raise DatabaseUnavailable("The database of accounts does not answer in time.") from None
        except asyncio.CancelledError:
            self.settle(reserve.id, account, None)
            raise

    def _new_id(self) -> str:
        return f"{self._name}{next(self._numbers):010x}"

    def settle(self, id: str, account: Account, usage: Usage | None) -> None:
        """A call has ended; None: it never ran. Returns at once; it is posted as soon as may be."""
        self._ends.append(Settle(id, account, usage))
        if len(self._ends) in (1, _MOST_AT_ONCE):
            self._tell()

    async def close(self, timeout_s: float) -> bool:
        """Post what waits, if the database lets us. False if some is left: it will expire."""
        self._is_closing = True
        self._tell()
        is_posted = self._working is None or await self._ends_within(self._working, timeout_s)
        await self._book.close()
        return is_posted

    async def _ends_within(self, working: asyncio.Task[None], timeout_s: float) -> bool:
        await asyncio.wait((working,), timeout=timeout_s)
        if working.done():
            return True
        logger.error("%d ends of calls could not be posted; they expire", len(self._ends))
        working.cancel()
        return False

    async def _work(self) -> None:
        pause_s = 0.0
        next_renewal_s = time.monotonic()
        while True:
            batch = await self._next_batch(next_renewal_s)
            if not batch and self._is_closing:
                break
            try:
                if batch:
                    postings, posted_s = [posting for posting, _ in batch], time.monotonic()
                    outcomes = await self._book.post(postings)
                    _resolve(batch, outcomes)
                    self._ahead.put(postings, outcomes, posted_s)
                    batch = []  # whatever fails from here on, these are posted
                if time.monotonic() >= next_renewal_s:
                    next_renewal_s = time.monotonic() + self._renew_every_s
                    await self._book.renew()
                pause_s = 0.0
            except Exception as error:
                pause_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                self._report(error)
                self._put_back(batch)
                await self._refuse_for(pause_s)

    async def _next_batch(self, until_s: float) -> list[Item]:
        """What waits: ends of calls first, for they make room; nothing, when it is time to renew or
        to close. Whoever is cancelled while he waits was never here. Reservations ahead come last,
        so that they take nothing from calls that wait."""
        until_s = min(until_s, self._ahead.look_again_s)
        await self._wait_for(self._is_worth_while, until_s - time.monotonic())
        if (self._ends or self._ahead.wants) and not self._is_urgent():
            await self._wait_for(self._is_urgent, _SETTLE_WITHIN_S)
        now_s = math.inf if self._is_closing else time.monotonic()
        self._ends.extend(self._ahead.too_old(now_s))
        batch: list[Item] = []
        while self._ends and len(batch) < _MOST_AT_ONCE:
            batch.append((self._ends.popleft(), None))
        while self._beginnings and len(batch) < _MOST_AT_ONCE:
            reserve, answer = self._beginnings.popleft()
            if not answer.cancelled():
                batch.append((reserve, answer))
        if not self._is_closing:
            more = self._ahead.to_post(_MOST_AT_ONCE - len(batch))
            batch += [(reserve, None) for reserve in more]
        return batch

    def _is_worth_while(self) -> bool:
        return bool(self._ends or self._beginnings) or self._ahead.wants or self._is_closing

    def _is_urgent(self) -> bool:
        """Somebody waits, or there is enough for a batch."""
        return bool(self._beginnings) or self._is_closing or len(self._ends) >= _MOST_AT_ONCE

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """At most so long."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while not condition() and loop.time() < until_s:
            self._news = loop.create_future()
            alarm = loop.call_at(until_s, self._tell)
            await self._news
            alarm.cancel()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _put_back(self, batch: list[Item]) -> None:
        """Ends of calls for another time; reservations are refused, and ended if they got in."""
        error = DatabaseUnavailable(
            "The database of accounts cannot be used now, and nothing is let through uncounted. "
            "Try again soon."
        )
        again = [
            posting if isinstance(posting, Settle) else Settle(posting.id, posting.account, None)
            for posting, _ in batch
        ]
        _resolve(batch, [error] * len(batch))
        self._ahead.put([posting for posting, _ in batch], [error] * len(batch), time.monotonic())
        self._ends.extendleft(reversed(again))

    async def _refuse_for(self, pause_s: float) -> None:
        """Reservations that come meanwhile never reach the database. Closing ends the pause, once:
        there is one more try at once, and others as before."""
        until_s, was_closing = time.monotonic() + pause_s, self._is_closing
        while (left_s := until_s - time.monotonic()) > 0 and self._is_closing == was_closing:
            await self._wait_for(
                lambda: bool(self._beginnings) or self._is_closing != was_closing, left_s
            )
            error = DatabaseUnavailable("The database of accounts cannot be used now.")
            refused: list[Item] = list(self._beginnings)
            self._beginnings.clear()
            _resolve(refused, [error] * len(refused))

    def _report(self, error: Exception) -> None:
        if isinstance(error, NovaCronError):
            logger.warning("the ledger cannot be written, so nothing new is let in: %s", error)
        else:
            logger.error("the ledger failed by a bug; nothing new is let in", exc_info=error)


async def _within(answer: Answer, patience_s: float) -> Entry:
    """Raises TimeoutError. Time is counted in looks, as in HeartMonitor: when we were stopped,
    whoever is to answer was, too, and gets time to do it."""
    try:
        for _ in range(_LOOKS):
            await asyncio.wait((answer,), timeout=patience_s / _LOOKS)
            if answer.done():
                return answer.result()
        raise TimeoutError
    finally:
        answer.cancel()  # nobody waits any more, and a batch that has not gone is without it


def _resolve(batch: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
    for (_, answer), outcome in zip(batch, outcomes, strict=True):
        if answer is None or answer.done() or outcome is None:
            continue
        if isinstance(outcome, Entry):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)
