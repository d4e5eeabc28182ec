"""AuditLog: the audit log for an event loop, written by a thread of its own.

The thread takes all that waits and appends it in one go. A record that somebody waits for is on the
disk before he hears of it; others are synced once a second, so that is what a power cut may take
(the end of the process alone takes what came within its last 50 ms). When the log cannot be
written, whoever would wait is refused at once, and others' records are kept up to a number; beyond
it they are lost, counted, and their number stands in the log as soon as it can be written again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from novacron.audit.record import AuditRecord
from novacron.errors import AuditUnavailable
from novacron.observability.audit_counts import AuditCounts

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 1000

Item = tuple[AuditRecord, asyncio.Future[None] | None]


class Lane(Protocol):
    """LaneWriter, or one that fails for a test."""

    def append(self, records: Sequence[AuditRecord]) -> None: ...
    def sync(self) -> None: ...
    def reopen(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class LogPolicy:
    """When records are written and synced, and how many wait while they cannot be."""

    gather_s: float = 0.05
    sync_every_s: float = 1.0
    retry_s: float = 1.0
    most_waiting: int = 10_000


class AuditLog:
    """Belongs to one event loop."""

    def __init__(
        self, lane: Lane, policy: LogPolicy | None = None, counts: AuditCounts | None = None
    ) -> None:
        self.counts = counts or AuditCounts()
        self._lane = lane
        self._policy = policy or LogPolicy()
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._num_waited_for = 0
        self._num_lost = 0  # of which the log does not tell yet
        self._is_failing = False
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    def note(self, record: AuditRecord) -> None:
        """Returns at once; the record is written as soon as may be."""
        with self._changed:
            if len(self._waiting) >= self._policy.most_waiting:
                self.counts.num_lost += 1
                self._num_lost += 1
                return
            self._waiting.append((record, None))
            if len(self._waiting) in (1, _MOST_AT_ONCE):
                self._changed.notify()

    async def write(self, record: AuditRecord) -> None:
        """Returns once the record is on the disk. Raises AuditUnavailable."""
        assert self._loop is not None, "start() comes first"
        done: asyncio.Future[None] = self._loop.create_future()
        with self._changed:
            if self._is_failing or self._is_closing:
                raise AuditUnavailable()
            self._waiting.append((record, done))
            self._num_waited_for += 1
            self._changed.notify()
        await done

    async def close(self, timeout_s: float) -> None:
        """Write what waits, if that is possible."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
        if self._waiting:
            logger.error("%d audit records could not be written", len(self._waiting))

    def _work(self) -> None:
        """The thread."""
        next_sync_s: float | None = None  # None: all is synced
        while True:
            batch = self._next_batch(next_sync_s)
            if not batch and self._is_closing and next_sync_s is None:
                break
            try:
                if batch:
                    self._append(batch)
                    next_sync_s = next_sync_s or time.monotonic() + self._policy.sync_every_s
                is_waited_for = any(done is not None for _, done in batch)
                is_due = next_sync_s is not None and time.monotonic() >= next_sync_s
                if is_waited_for or is_due or self._is_closing:
                    self._lane.sync()
                    next_sync_s = None
                self._tell(batch, None)
            except Exception as error:  # by a bug, too, nobody may wait for ever
                next_sync_s = None
                if not self._recover(batch, error):
                    break
        with suppress(OSError):
            self._lane.close()

    def _next_batch(self, until_s: float | None) -> list[Item]:
        """What waits; nothing, when it is time to sync or to close."""
        with self._changed:
            timeout_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            self._changed.wait_for(lambda: bool(self._waiting) or self._is_closing, timeout_s)
            if self._waiting:
                self._changed.wait_for(self._is_urgent, self._policy.gather_s)
            num = min(len(self._waiting), _MOST_AT_ONCE)
            batch = [self._waiting.popleft() for _ in range(num)]
            self._num_waited_for -= sum(done is not None for _, done in batch)
            if batch and self._num_lost:
                lost = AuditRecord(time=round(time.time(), 3), kind="lost", count=self._num_lost)
                batch.append((lost, None))
                self._num_lost = 0
            return batch

    def _is_urgent(self) -> bool:
        """Somebody waits, or there is enough for a batch."""
        return self._num_waited_for > 0 or self._is_closing or len(self._waiting) >= _MOST_AT_ONCE

    def _append(self, batch: Sequence[Item]) -> None:
        self._lane.append([record for record, _ in batch])
        for record, _ in batch:
            self.counts.written[record.kind] += 1

    def _recover(self, batch: Sequence[Item], error: Exception) -> bool:
        """Refuse those who wait, and try again until it works. False if the end comes first."""
        self._is_failing = True
        left = list(batch)
        self.counts.num_errors += 1
        logger.warning(
            "the audit log cannot be written, so administrative actions are refused; inference "
            "goes on: %s",
            error,
        )
        while True:
            self._tell(left, AuditUnavailable())
            with self._changed:
                refused = [item for item in self._waiting if item[1] is not None]
                self._waiting = deque(item for item in self._waiting if item[1] is None)
                self._num_waited_for = 0
            self._tell(refused, AuditUnavailable())
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, self._policy.retry_s)
            try:
                num_there = self._lane.reopen()
            except OSError:
                if self._is_closing:
                    self._put_back(left)
                    return False
                continue
            self._put_back(left[num_there:])
            self._is_failing = False
            logger.warning("the audit log can be written again")
            return True

    def _put_back(self, left: Sequence[Item]) -> None:
        """Records that nobody waits for, for another time."""
        again = [(record, None) for record, done in left if done is None]
        with self._changed:
            self._waiting.extendleft(reversed(again))

    def _tell(self, batch: Sequence[Item], error: AuditUnavailable | None) -> None:
        told = [done for _, done in batch if done is not None]
        if told:
            self._in_loop(lambda: _resolve(told, error))

    def _in_loop(self, function: Callable[[], object]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
            self._loop.call_soon_threadsafe(function)


def _resolve(told: Sequence[asyncio.Future[None]], error: AuditUnavailable | None) -> None:
    for done in told:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
