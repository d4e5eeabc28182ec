"""Ledger: reservations and their settlement for an event loop, posted by a thread of its own.

The thread takes all that waits and posts it in one transaction, so that calls beside each other
share the cost of a commit. A reservation is granted only once it is committed. When the database
does not answer, reservations are refused, and ends of calls wait until it does; where it is not
known whether a reservation got through, its end is posted after it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from uuid import uuid4

from novacron.accounts.posting import Entry, Outcome, Posting, Reserve, Settle, Usage
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.coordination.streams import StreamStart
from novacron.errors import DatabaseUnavailable, NovaCronError

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 512
_PATIENCE_S: Final = 5.0
_SETTLE_WITHIN_S: Final = 0.05  # ends of calls wait so long for company
_LONGEST_REST_S: Final = 0.005  # between two batches, if the first one took as long
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_RENEW_EVERY_S: Final = 10.0

Answer = asyncio.Future[Entry]
Item = tuple[Posting, Answer | None]


class Book(Protocol):
    """Where postings go: LedgerBook, or one that fails for a test."""

    def post(self, postings: Sequence[Posting]) -> list[Outcome]: ...

    def renew(self) -> None: ...


class Ledger:
    """Belongs to one event loop."""

    def __init__(
        self,
        book: Book,
        *,
        patience_s: float = _PATIENCE_S,
        renew_every_s: float = _RENEW_EVERY_S,
    ) -> None:
        """A call waits for its reservation for `patience_s`, and is refused then."""
        self._book = book
        self._patience_s = patience_s
        self._renew_every_s = renew_every_s
        self._beginnings: deque[tuple[Reserve, Answer]] = deque()
        self._ends: deque[Settle] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def reserve(
        self, account: Account, wish: Wish, stream: StreamStart | None = None
    ) -> Entry:
        """Raises QuotaExceeded, Forbidden, InvalidRequest, and DatabaseUnavailable in any doubt.
        The record of `stream` is there as soon as the reservation is.

        What is not settled, whoever is cancelled here settles.
        """
        assert self._loop is not None, "start() comes first"
        reserve = Reserve(uuid4().hex, account, wish, stream)
        answer: Answer = self._loop.create_future()
        with self._changed:
            self._beginnings.append((reserve, answer))
            self._changed.notify()
        try:
            async with asyncio.timeout(self._patience_s):
                return await answer
        except TimeoutError:
            self.settle(reserve.id, account, None)
            raise DatabaseUnavailable("The database of accounts does not answer in time.") from None
        except asyncio.CancelledError:
            self.settle(reserve.id, account, None)
            raise

    def settle(self, id: str, account: Account, usage: Usage | None) -> None:
        """A call has ended; None: it never ran. Returns at once; it is posted as soon as may be."""
        with self._changed:
            self._ends.append(Settle(id, account, usage))
            self._changed.notify()

    async def close(self, timeout_s: float) -> bool:
        """Post what waits, if the database lets us. False if some is left: it will expire."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
            if self._thread.is_alive():
                logger.error("%d ends of calls could not be posted; they expire", len(self._ends))
                return False
        return True

    def _work(self) -> None:
        """The thread."""
        pause_s = 0.0
        next_renewal_s = rested_s = time.monotonic()
        while True:
            batch = self._next_batch(next_renewal_s, rested_s)
            began_s = time.monotonic()
            if not batch and self._is_closing:
                return
            try:
                if batch:
                    self._tell(batch, self._book.post([posting for posting, _ in batch]))
                    batch = []  # whatever fails from here on, these are posted
                    rested_s = _after_a_rest(began_s, time.monotonic())
                if time.monotonic() >= next_renewal_s:
                    next_renewal_s = time.monotonic() + self._renew_every_s
                    self._book.renew()
                pause_s = 0.0
            except Exception as error:
                pause_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                self._report(error)
                self._put_back(batch)
                self._refuse_for(pause_s)

    def _next_batch(self, until_s: float, rested_s: float) -> list[Item]:
        """What waits: ends of calls first, for they make room; nothing, when it is time to renew or
        to close. Not before `rested_s`. Whoever is cancelled while he waits was never here."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, max(0.0, rested_s - time.monotonic()))
            self._changed.wait_for(self._is_worth_while, max(0.0, until_s - time.monotonic()))
            if self._ends and not self._is_urgent():
                self._changed.wait_for(self._is_urgent, _SETTLE_WITHIN_S)
            batch: list[Item] = []
            while self._ends and len(batch) < _MOST_AT_ONCE:
                batch.append((self._ends.popleft(), None))
            while self._beginnings and len(batch) < _MOST_AT_ONCE:
                reserve, answer = self._beginnings.popleft()
                if not answer.cancelled():
                    batch.append((reserve, answer))
            return batch

    def _is_worth_while(self) -> bool:
        return bool(self._ends or self._beginnings) or self._is_closing

    def _is_urgent(self) -> bool:
        """Somebody waits, or there is enough for a batch."""
        return bool(self._beginnings) or self._is_closing or len(self._ends) >= _MOST_AT_ONCE

    def _tell(self, batch: list[Item], outcomes: list[Outcome]) -> None:
        told = [
            (answer, outcome)
            for (_, answer), outcome in zip(batch, outcomes, strict=True)
            if answer is not None and outcome is not None
        ]
        if told:
            self._in_loop(lambda: _resolve(told))

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
        self._tell(batch, [error] * len(batch))
        with self._changed:
            self._ends.extendleft(reversed(again))

    def _refuse_for(self, pause_s: float) -> None:
        """Reservations that come meanwhile never reach the database."""
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(left_s)
                if self._is_closing:
                    return
                refused: list[Item] = list(self._beginnings)
                self._beginnings.clear()
            error = DatabaseUnavailable("The database of accounts cannot be used now.")
            self._tell(refused, [error] * len(refused))

    def _report(self, error: Exception) -> None:
        if isinstance(error, NovaCronError):
            logger.warning("the ledger cannot be written, so nothing new is let in: %s", error)
        else:
            logger.error("the ledger failed by a bug; nothing new is let in", exc_info=error)

    def _in_loop(self, function: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop has ended, and with it everybody who waited
            logger.debug("nobody is left to hear of %d postings", _MOST_AT_ONCE)


def _after_a_rest(began_s: float, ended_s: float) -> float:
    """When the next batch may begin. A rest as long as the work lets company gather for one, which
    costs a batch little more, and leaves the interpreter to those who answer requests."""
    return ended_s + min(ended_s - began_s, _LONGEST_REST_S)


def _resolve(told: Sequence[tuple[Answer, Entry | NovaCronError]]) -> None:
    for answer, outcome in told:
        if answer.done():
            continue
        if isinstance(outcome, Entry):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)
