"""Native calls that run: each fills an event log, which any number of clients of its tenant read.

A call ends when its last reader leaves, unless it runs in the background.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, nullcontext

from novacron.errors import NovaCronError, RequestFailed, StreamMoved
from novacron.gateway.calls import Choice
from novacron.gateway.error_mapping import error_detail
from novacron.gateway.native.events import (
    EventData,
    EventType,
    HealthData,
    InferenceResponse,
    StreamEvent,
    encode,
)
from novacron.gateway.native.replies import NativeCall, Stopwatch
from novacron.gateway.recording import Recording
from novacron.gateway.replay import Event, EventLog, ReplayBuffer, StreamId
from novacron.gateway.service import Service
from novacron.records.output import RequestOutput

logger = logging.getLogger(__name__)


Outputs = asyncio.Queue[tuple[RequestOutput, int] | None]


class Generation:
    """One native call while it runs.

    `settled` is set once the engine has brought something or the call is over. `refusal` is why the
    call was over before that. `has_moved`: it is not over, but goes on at another coordinator.
    `listener` gets all outputs, each with the number of the last event that tells it; then None.
    """

    def __init__(
        self, native_call: NativeCall, log: EventLog, listener: Outputs | None = None
    ) -> None:
        self.native_call = native_call
        self.log = log
        self.listener = listener
        self.settled = asyncio.Event()
        self.refusal: NovaCronError | None = None
        self.has_moved = False
        self.num_readers = 0

    @property
    def record(self) -> Recording:
        return self.native_call.call.origin.record


class Generations:
    """The running native calls, and the event logs of those and of ended ones."""

    def __init__(self, service: Service) -> None:
        config = service.config
        self._service = service
        self._replay = ReplayBuffer(
            config.replay_buffer_bytes, config.replay_seconds, time.monotonic
        )
        self._running: dict[StreamId, Generation] = {}
        self._tasks: dict[StreamId, asyncio.Task[InferenceResponse]] = {}

    def start(self, native_call: NativeCall, listener: Outputs | None = None) -> Generation:
        """Run the call. Raises StreamIdInUse."""
        stream = stream_of(native_call)
        generation = Generation(native_call, self._replay.open(stream), listener)
        self._running[stream] = generation
        task = asyncio.create_task(self._run(generation))
        task.add_done_callback(_retrieve)
        self._tasks[stream] = task
        return generation

    async def accepted(self, native_call: NativeCall) -> None:
        """Run the call in the background. Return when it would outlive this process, if it is to.

        Raises why it was refused, if that is known by then.
        """
        generation = self.start(native_call)
        waiting = [
            asyncio.ensure_future(generation.record.until_begun()),
            asyncio.ensure_future(generation.settled.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if generation.refusal is not None:
            raise generation.refusal

    def move(self, stream: StreamId) -> None:
        """Another coordinator goes on with a call that runs here."""
        generation = self._running.get(stream)
        if generation is not None:
            generation.has_moved = True
            self._tasks[stream].cancel()

    async def whole(self, native_call: NativeCall) -> InferenceResponse:
        """Run the call as its reader, and return its response."""
        generation = self.start(native_call)
        task = self._tasks[stream_of(native_call)]
        with self._reading(generation):
            return await asyncio.shield(task)

    async def stream(self, native_call: NativeCall) -> AsyncGenerator[Event, None]:
        """Run the call as its reader, and yield its events.

        Raises why the call was refused, if it was: before the first event.
        """
        generation = self.start(native_call)
        with self._reading(generation):
            await generation.settled.wait()
            if generation.refusal is not None:
                raise generation.refusal
            async with aclosing(generation.log.read()) as events:
                async for event in events:
                    yield event

    async def outputs(
        self, native_call: NativeCall
    ) -> AsyncGenerator[tuple[RequestOutput, int], None]:
        """Run the call as its reader, who tells it in other words, and yield what the engine
        brings, with the number of the last event that tells as much.

        Raises what the call does, and StreamMoved if it goes on at another coordinator.
        """
        listener: Outputs = asyncio.Queue()
        generation = self.start(native_call, listener)
        task = self._tasks[stream_of(native_call)]
        with self._reading(generation):
            while (told := await listener.get()) is not None:
                yield told
            await asyncio.wait((task,))
            if task.cancelled():
                raise StreamMoved
            task.result()

    def has_more(self, stream: StreamId, start: int) -> bool:
        """Whether there are, or may come, events from number `start` on. Raises RequestNotFound."""
        log = self._replay.get(stream)
        return not log.closed or start < log.next_number

    def knows(self, stream: StreamId) -> bool:
        """Whether the id has a stream that can be read."""
        return self._replay.find(stream) is not None

    async def events(self, stream: StreamId, start: int = 0) -> AsyncGenerator[Event, None]:
        """Events of a call that runs or ran. Raises RequestNotFound and EventsLost.

        Reads as one of the call's clients: it may end when this generator is closed.
        """
        log = self._replay.get(stream)
        generation = self._running.get(stream)
        listening = nullcontext() if generation is None else self._reading(generation)
        with listening:
            async with aclosing(log.read(start)) as events:
                async for event in events:
                    yield event

    def health_event(self, stream: StreamId) -> bytes:
        """Not kept: it tells of now."""
        stats = self._service.client.stats
        health = HealthData(self._service.client.state.value, stats.num_running, stats.num_waiting)
        log = self._replay.find(stream)
        return _event("health", stream.request_id, 0 if log is None else log.next_number, health)

    def error_event(self, stream: StreamId, error: NovaCronError) -> bytes:
        """For one reader only: it is not part of the stream."""
        log = self._replay.find(stream)
        number = 0 if log is None else log.next_number
        return _event("error", stream.request_id, number, error_detail(error))

    async def cancel(self, stream: StreamId) -> bool:
        """End a running call with ABORT. False if it does not run (any more)."""
        return await self._service.calls.cancel(stream.request_id, stream.tenant) > 0

    @contextmanager
    def _reading(self, generation: Generation) -> Iterator[None]:
        """Count a reader meanwhile; the last one to leave ends the call."""
        generation.num_readers += 1
        try:
            yield
        finally:
            generation.num_readers -= 1
            task = self._tasks.get(stream_of(generation.native_call))
            if task and not generation.num_readers and not generation.native_call.background:
                task.cancel()

    async def _run(self, generation: Generation) -> InferenceResponse:
        native_call = generation.native_call
        stream = stream_of(native_call)
        self._append(stream, "metadata", native_call.metadata())
        try:
            return await self._generate(generation)
        except NovaCronError as error:
            if not generation.settled.is_set():
                generation.refusal = error
            if generation.record.fail(error):
                generation.has_moved = True
                generation.log.fail(error)
            else:
                self._append(stream, "error", error_detail(error))
            raise
        except asyncio.CancelledError:
            if generation.has_moved:
                generation.log.fail(StreamMoved())
                raise
            generation.record.leave()
            left = RequestFailed("The request was ended because its last client went away.")
            self._append(stream, "error", error_detail(left))
            raise
        except Exception:  # a bug of ours; whoever reads the events must learn of the end
            logger.exception("request %s failed in an unexpected way", stream.request_id)
            failed = RequestFailed("The server failed in an unexpected way; its log says how.")
            generation.record.fail(failed)
            self._append(stream, "error", error_detail(failed))
            raise
        finally:
            del self._running[stream], self._tasks[stream]
            if generation.refusal is None and not generation.has_moved:
                self._replay.close(stream)
            else:
                self._replay.forget(stream)  # so that the id can be used again
            generation.settled.set()
            if generation.listener is not None:
                generation.listener.put_nowait(None)

    async def _generate(self, generation: Generation) -> InferenceResponse:
        native_call = generation.native_call
        stream = stream_of(native_call)
        spec = self._service.spec_of(native_call.call.origin.variant)
        stopwatch = Stopwatch(native_call.call.origin.arrival_time_s)
        choices = tuple(Choice() for _ in native_call.call.requests)
        async with aclosing(self._service.calls.run(native_call.call)) as outputs:
            async for output in outputs:
                generation.settled.set()
                stopwatch.see(output)
                await generation.record.tell(output)
                choices[output.index].add(output)
                for piece in native_call.tokens(output):
                    self._append(stream, "token", piece)
                if generation.listener is not None:
                    generation.listener.put_nowait((output, generation.log.next_number - 1))
        performance = stopwatch.performance()
        complete = native_call.complete(choices, performance)
        self._append(stream, "complete", complete)
        generation.record.end()
        return native_call.response(choices, performance, spec)

    def _append(self, stream: StreamId, type: EventType, data: EventData) -> None:
        number = self._replay.get(stream).next_number
        self._replay.append(stream, _event(type, stream.request_id, number, data))


def stream_of(native_call: NativeCall) -> StreamId:
    return StreamId(native_call.request_id, native_call.call.origin.caller.tenant)


def _event(type: EventType, request_id: str, number: int, data: EventData) -> bytes:
    return encode(StreamEvent(type, request_id, number, int(time.time() * 1000), data))


def _retrieve(task: asyncio.Task[InferenceResponse]) -> None:
    """Errors are told in the log; nobody may be waiting for the task itself."""
    if not task.cancelled():
        task.exception()
