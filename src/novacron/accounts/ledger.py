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
from novacron.errors import DatabaseUnavailable, NovaCronError

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 512
_PATIENCE_S: Final = 5.0  # of a call that waits for its reservation
_SETTLE_WITHIN_S: Final = 0.05  # ends of calls wait so long for company
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_TEND_EVERY_S: Final = 10.0

Answer = asyncio.Future[Entry]
Item = tuple[Posting, Answer | None]


class Book(Protocol):
    """Where postings go: LedgerBook, or one that fails for a test."""

    def post(self, postings: Sequence[Posting]) -> list[Outcome]: ...

    def tend(self) -> int: ...


class Ledger:
    """Belongs to one event loop."""

    def __init__(self, book: Book, *, tend_every_s: float = _TEND_EVERY_S) -> None:
        self._book = book
        self._tend_every_s = tend_every_s
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def reserve(self, account: Account, wish: Wish) -> Entry:
        """Raises QuotaExceeded, Forbidden, InvalidRequest, and DatabaseUnavailable in any doubt.

        What is not settled, whoever is cancelled here settles.
        """
        assert self._loop is not None, "start() comes first"
        reserve = Reserve(uuid4().hex, account, wish)
        answer: Answer = self._loop.create_future()
        self._put(reserve, answer)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await answer
        except TimeoutError:
            self.settle(reserve.id, account, None)
            raise DatabaseUnavailable("The database of accounts does not answer in time.") from None
        except asyncio.CancelledError:
            self.settle(reserve.id, account, None)
            raise

    def settle(self, id: str, account: Account, usage: Usage | None) -> None:
        """A call has ended; None: it never ran. Returns at once; it is posted as soon as may be."""
        self._put(Settle(id, account, usage), None)

    async def close(self, timeout_s: float) -> bool:
        """Post what waits, if the database lets us. False if some is left: it will expire."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
            if self._thread.is_alive():
                logger.error("%d ends of calls could not be posted; they expire", len(self._items))
                return False
        return True

    def _put(self, posting: Posting, answer: Answer | None) -> None:
        with self._changed:
            self._items.append((posting, answer))
            self._changed.notify()

    def _work(self) -> None:
        """The thread."""
        pause_s = 0.0
        next_tend_s = time.monotonic()
        while True:
            batch = self._next_batch(next_tend_s)
            if not batch and self._is_closing:
                return
            try:
                if batch:
                    self._tell(batch, self._book.post([posting for posting, _ in batch]))
                if time.monotonic() >= next_tend_s:
                    next_tend_s = time.monotonic() + self._tend_every_s
                    self._book.tend()
                pause_s = 0.0
            except Exception as error:
                pause_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                self._report(error)
                self._put_back(batch)
                self._refuse_for(pause_s)

    def _next_batch(self, until_s: float) -> list[Item]:
        """What waits, in its order. The end of a call stays for the next batch if its beginning is
        in this one. Nothing, when it is time to tend or to close."""
        with self._changed:
            self._changed.wait_for(self._is_worth_while, max(0.0, until_s - time.monotonic()))
            if self._items and not self._is_urgent():
                self._changed.wait_for(self._is_urgent, _SETTLE_WITHIN_S)
            batch: list[Item] = []
            begun = set()
            while self._items and len(batch) < _MOST_AT_ONCE:
                posting, answer = self._items[0]
                if isinstance(posting, Settle) and posting.id in begun:
                    break
                self._items.popleft()
                if answer is not None and answer.cancelled():
                    continue
                if isinstance(posting, Reserve):
                    begun.add(posting.id)
                batch.append((posting, answer))
            return batch

    def _is_worth_while(self) -> bool:
        return bool(self._items) or self._is_closing

    def _is_urgent(self) -> bool:
        """Somebody waits, or there is enough for a batch."""
        if self._is_closing or len(self._items) >= _MOST_AT_ONCE:
            return True
        return any(answer is not None for _, answer in self._items)

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
        again: list[Item] = []
        for posting, answer in batch:
            if answer is None:
                again.append((posting, None))
            else:
                again.append((Settle(posting.id, posting.account, None), None))
        self._tell(batch, [error if answer is not None else None for _, answer in batch])
        with self._changed:
            self._items.extendleft(reversed(again))

    def _refuse_for(self, pause_s: float) -> None:
        """Reservations that come meanwhile never reach the database."""
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(left_s)
                if self._is_closing:
                    return
                refused = [item for item in self._items if item[1] is not None]
                kept = [item for item in self._items if item[1] is None]
                self._items = deque(kept)
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


def _resolve(told: Sequence[tuple[Answer, Entry | NovaCronError]]) -> None:
    for answer, outcome in told:
        if answer.done():
            continue
        if isinstance(outcome, Entry):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)
