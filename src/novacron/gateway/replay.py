"""Numbered events of streams, kept for a while: clients may attach late, leave and resume.

Bounded in bytes over all streams: finished streams go first, oldest first; then the oldest events
of the largest stream. A reader that asks for what is gone is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import NamedTuple

from novacron.errors import EventsLost, NovaCronError, RequestNotFound, StreamIdInUse

_OVERHEAD_BYTES = 200  # of the objects around the bytes of an event


class StreamId(NamedTuple):
    """A stream is found by the id of its request, and by nobody but its tenant."""

    request_id: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """`data` is the event as JSON, as every kind of connection sends it."""

    number: int
    data: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.data) + _OVERHEAD_BYTES


class EventLog:
    """The events of one stream, numbered from 0. Any number of readers, each at its own place.

    Written through ReplayBuffer, which keeps count of the bytes.
    """

    def __init__(self) -> None:
        self._events: dict[int, Event] = {}
        self._next_number = 0
        self._news = asyncio.Event()
        self._failure: NovaCronError | None = None
        self.closed = False
        self.num_bytes = 0

    @property
    def next_number(self) -> int:
        """The number that the next event will have."""
        return self._next_number

    @property
    def first_kept(self) -> int:
        return self._next_number - len(self._events)

    async def read(self, start: int = 0) -> AsyncGenerator[Event, None]:
        """Events from number `start` on, as they come, until the stream is closed.

        Raises EventsLost when the next event is not kept any more, and at the end why the stream
        does not go on here, if that is so.
        """
        number = start
        while True:
            while number < self._next_number:
                if number < self.first_kept:
                    raise EventsLost(number, self.first_kept)
                yield self._events[number]
                number += 1
            if self._failure is not None:
                raise self._failure
            if self.closed:
                return
            await self._news.wait()

    def append(self, data: bytes) -> None:
        event = Event(self._next_number, data)
        self._events[event.number] = event
        self._next_number += 1
        self.num_bytes += event.num_bytes
        self._tell_readers()

    def drop_oldest(self) -> int:
        """Returns how many bytes became free."""
        event = self._events.pop(self.first_kept)
        self.num_bytes -= event.num_bytes
        return event.num_bytes

    def drop_all(self) -> None:
        """Readers that have not come to the end learn that the rest is lost."""
        self._events.clear()
        self.num_bytes = 0

    def close(self) -> None:
        self.closed = True
        self._tell_readers()

    def fail(self, error: NovaCronError) -> None:
        """The stream is not at its end, but nothing more of it will come here."""
        self._failure = error
        self.close()

    def _tell_readers(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class ReplayBuffer:
    """All event logs, by the id of their stream."""

    def __init__(self, max_bytes: int, keep_s: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._logs: dict[StreamId, EventLog] = {}
        self._finish_times_s: dict[StreamId, float] = {}  # in the order of finishing
        self.num_bytes = 0

    def open(self, stream: StreamId) -> EventLog:
        """A new log. Raises StreamIdInUse if the id has one already."""
        self._forget_expired()
        if stream in self._logs:
            raise StreamIdInUse(stream.request_id)
        log = self._logs[stream] = EventLog()
        return log

    def get(self, stream: StreamId) -> EventLog:
        """Raises RequestNotFound."""
        log = self.find(stream)
        if log is None:
            raise RequestNotFound(
                f"No stream of request '{stream.request_id}' is known: there was none, or it ended "
                f"more than {self._keep_s:g} seconds ago, or made room for newer ones."
            )
        return log

    def find(self, stream: StreamId) -> EventLog | None:
        self._forget_expired()
        return self._logs.get(stream)

    def append(self, stream: StreamId, data: bytes) -> None:
        log = self._logs[stream]
        before = log.num_bytes
        log.append(data)
        self.num_bytes += log.num_bytes - before
        self._make_room()

    def close(self, stream: StreamId) -> None:
        """No more events will come. The log can be read until it expires or must make room."""
        self._logs[stream].close()
        self._finish_times_s[stream] = self._clock()
        self._forget_expired()

    def forget(self, stream: StreamId) -> EventLog:
        """Close the log; its id is free again. Readers that are at it may read it to the end."""
        log = self._logs.pop(stream)
        log.close()
        self._finish_times_s.pop(stream, None)
        self.num_bytes -= log.num_bytes
        return log

    def _forget_expired(self) -> None:
        limit_s = self._clock() - self._keep_s
        while self._finish_times_s:
            stream, finished_s = next(iter(self._finish_times_s.items()))
            if finished_s > limit_s:
                return
            self.forget(stream)

    def _make_room(self) -> None:
        while self.num_bytes > self._max_bytes and self._finish_times_s:
            self.forget(next(iter(self._finish_times_s))).drop_all()
        while self.num_bytes > self._max_bytes:
            largest = max(self._logs.values(), key=lambda log: log.num_bytes)
            self.num_bytes -= largest.drop_oldest()
