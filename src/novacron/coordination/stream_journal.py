"""StreamJournal: what this coordinator's streams tell, put on record by a thread of its own.

Most of it can wait, since whoever goes on with a stream comes to the same by himself; it is written
now and then, for all streams in one transaction. What has to be on record before it is told is
written at once. When the database does not answer for long, the record of a stream is given up, and
the stream goes on without one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

from novacron.coordination.shared_state import StreamRows
from novacron.coordination.streams import Chunk, StreamEnd, StreamState
from novacron.coordination.told import encode
from novacron.errors import NovaCronError
from novacron.records.output import RequestOutput

logger = logging.getLogger(__name__)

_FLUSH_EVERY_S: Final = 0.25
_PATIENCE_S: Final = 3.0
_PAUSE_S: Final = 0.5  # after a failure


class OpenStream:
    """One stream of this coordinator. `on_lost`: another one has gone on with it."""

    def __init__(self, key: str, epoch: int, num_chunks: int, on_lost: Callable[[], None]) -> None:
        self.key = key
        self.epoch = epoch
        self.on_lost = on_lost
        self.num_unwritten = 0  # outputs
        self.is_given_up = False
        self._num_chunks = num_chunks
        self._outputs: list[RequestOutput] = []
        self._end: StreamEnd | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def _take(self) -> tuple[Chunk | None, StreamEnd | None, int, list[asyncio.Future[None]]]:
        """What is to be written, how many outputs that is, and who waits for it."""
        outputs, self._outputs = self._outputs, []
        waiting, self._waiting = self._waiting, []
        end, self._end = self._end, None
        if not outputs:
            return None, end, 0, waiting
        chunk = Chunk(self.key, self.epoch, self._num_chunks, encode(outputs))
        self._num_chunks += 1
        return chunk, end, len(outputs), waiting


class _Batch:
    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.ends: list[StreamEnd] = []
        self.written: list[tuple[OpenStream, int]] = []
        self.waiting: list[asyncio.Future[None]] = []


class StreamJournal:
    """Belongs to one event loop. `owner` is the id of this coordinator."""

    def __init__(
        self,
        rows: StreamRows,
        owner: str,
        *,
        flush_every_s: float = _FLUSH_EVERY_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._rows = rows
        self._owner = owner
        self._flush_every_s = flush_every_s
        self._patience_s = patience_s
        self._changed: dict[OpenStream, None] = {}
        self._is_urgent = False
        self._is_closing = False
        self._condition = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="stream journal", daemon=True)
        self._thread.start()

    def note(self, stream: OpenStream, output: RequestOutput) -> None:
        """Returns at once."""
        if stream.is_given_up:
            return
        with self._condition:
            stream._outputs.append(output)
            stream.num_unwritten += 1
            self._mark(stream)

    async def written(self, stream: OpenStream) -> None:
        """Return once all that was noted is on record, or the record is given up."""
        if stream.is_given_up or self._loop is None:
            return
        waiting = self._loop.create_future()
        with self._condition:
            stream._waiting.append(waiting)
            self._mark(stream, is_urgent=True)
        try:
            async with asyncio.timeout(self._patience_s):
                await waiting
        except TimeoutError:
            logger.warning("the record of stream %s is given up", stream.key.partition("/")[0])
            self.end(stream, None)

    def end(
        self,
        stream: OpenStream,
        state: StreamState | None,
        *,
        error: str = "",
        is_released: bool = False,
    ) -> None:
        """As StreamEnd has it. Nothing more of it is written."""
        if stream.is_given_up:
            return
        with self._condition:
            stream._end = StreamEnd(stream.key, stream.epoch, state, error, is_released)
            stream.is_given_up = True
            self._mark(stream, is_urgent=is_released)

    async def close(self, timeout_s: float) -> None:
        """Write what waits, if the database lets us."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)

    def _mark(self, stream: OpenStream, *, is_urgent: bool = False) -> None:
        self._changed[stream] = None
        if is_urgent and not self._is_urgent:
            self._is_urgent = True
            self._condition.notify()
        elif len(self._changed) == 1:
            self._condition.notify()

    def _work(self) -> None:
        """The thread."""
        batch = _Batch()
        while True:
            self._gather(batch)
            if not batch.chunks and not batch.ends:
                if self._is_closing:
                    return
                self._tell(batch, set())
                batch = _Batch()
                continue
            try:
                lost = self._rows.append(self._owner, batch.chunks, batch.ends)
            except NovaCronError as error:
                logger.warning("streams cannot be put on record: %s", error)
                if self._is_closing:
                    return
                with self._condition:
                    self._condition.wait_for(lambda: self._is_closing, _PAUSE_S)
                continue
            except Exception:
                logger.exception("the journal of streams failed by a bug")
                lost = set()
            self._tell(batch, lost)
            batch = _Batch()

    def _gather(self, batch: _Batch) -> None:
        """Add what waits to `batch`, in which something may be left from a failure."""
        with self._condition:
            if not batch.chunks and not batch.ends:
                self._condition.wait_for(lambda: self._changed or self._is_closing)
                self._condition.wait_for(
                    lambda: self._is_urgent or self._is_closing, self._flush_every_s
                )
            for stream in self._changed:
                chunk, end, num_outputs, waiting = stream._take()
                if chunk is not None:
                    batch.chunks.append(chunk)
                if end is not None:
                    batch.ends.append(end)
                batch.written.append((stream, num_outputs))
                batch.waiting += waiting
            self._changed.clear()
            self._is_urgent = False

    def _tell(self, batch: _Batch, lost: set[str]) -> None:
        assert self._loop is not None

        def tell() -> None:
            for stream, num_outputs in batch.written:
                stream.num_unwritten -= num_outputs
            for stream in {stream: None for stream, _ in batch.written}:
                if stream.key in lost and not stream.is_given_up:
                    stream.is_given_up = True
                    stream.on_lost()
            for waiting in batch.waiting:
                if not waiting.done():
                    waiting.set_result(None)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop has ended, and with it everybody who waited
            logger.debug("nobody is left to hear of the journal")
