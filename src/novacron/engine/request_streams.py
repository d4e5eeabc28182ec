"""The live requests of one client: who waits for which output.

Knows nothing of processes or sockets; ProcessClient feeds it what arrives. Belongs to one event
loop. A reader that falls behind gets longer pieces, never a growing backlog of small ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from novacron.engine.output_processor import OutputProcessor, merge
from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest, NovaCronError
from novacron.records.output import EngineOutput, RequestOutput
from novacron.records.request import FinishReason, Request


class RequestStream:
    """The outputs of the requests of one call, in order of arrival."""

    def __init__(self, requests: tuple[Request, ...]) -> None:
        self._unfinished = {request.request_id for request in requests}
        self._pending: dict[str, RequestOutput] = {}
        self._failure: NovaCronError | None = None
        self._news = asyncio.Event()

    @property
    def unfinished(self) -> frozenset[str]:
        """Requests whose last output has not arrived."""
        return frozenset(self._unfinished)

    @property
    def ended(self) -> bool:
        """All outputs have arrived and were read."""
        return not self._unfinished and not self._pending

    async def next(self) -> list[RequestOutput]:
        """What arrived since the last call, at most one output per request. Waits for some."""
        await self._news.wait()
        self._news.clear()
        pending, self._pending = list(self._pending.values()), {}
        if not pending and self._failure is not None:
            raise self._failure
        if self._failure is not None:
            self._news.set()
        return pending

    def put(self, output: RequestOutput) -> None:
        earlier = self._pending.get(output.request_id)
        self._pending[output.request_id] = merge(earlier, output) if earlier else output
        if output.finished:
            self._unfinished.discard(output.request_id)
        self._news.set()

    def fail(self, error: NovaCronError) -> None:
        self._failure = error
        self._news.set()


class RequestStreams:
    """All streams of one client, by request id.

    An id that ended here before it ended in the engine stays taken until the engine's last output
    of it has passed, so that no output of an old request reaches a new one.
    """

    def __init__(self) -> None:
        self._live: dict[str, tuple[OutputProcessor, RequestStream]] = {}
        self._ending: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._live)

    def open(self, requests: tuple[Request, ...], tokenizer: Tokenizer) -> RequestStream:
        """Register the requests. Raises InvalidRequest for an id that is in use."""
        for request in requests:
            if request.request_id in self._live or request.request_id in self._ending:
                raise id_in_use(request.request_id)
        stream = RequestStream(requests)
        for index, request in enumerate(requests):
            processor = OutputProcessor(tokenizer, request, index)
            self._live[request.request_id] = (processor, stream)
        self._idle.clear()
        return stream

    def deliver(self, outputs: Iterable[EngineOutput]) -> tuple[str, ...]:
        """Hand outputs to their streams; return ids that the engine must abort, because a stop
        string has ended them here. Outputs of requests that are gone are dropped."""
        stopped_here = []
        for engine_output in outputs:
            request_id = engine_output.request_id
            entry = self._live.get(request_id)
            if entry is None:
                if engine_output.finish_reason is not None:
                    self._ending.discard(request_id)
                continue
            processor, stream = entry
            output = processor.process(engine_output)
            stream.put(output)
            if output.finished:
                self._forget(request_id)
                if engine_output.finish_reason is None:
                    self._ending.add(request_id)
                    stopped_here.append(request_id)
        return tuple(stopped_here)

    def abort(self, request_id: str) -> bool:
        """End a request here and now with ABORT. False if it is not live."""
        if request_id not in self._live:
            return False
        self.deliver((EngineOutput(request_id=request_id, finish_reason=FinishReason.ABORT),))
        self._ending.add(request_id)
        return True

    def close(self, stream: RequestStream) -> tuple[str, ...]:
        """Forget what is unfinished of a stream nobody reads any more; return its ids."""
        unfinished = tuple(stream.unfinished & self._live.keys())
        for request_id in unfinished:
            self._forget(request_id)
        self._ending.update(unfinished)
        return unfinished

    def hand_over(self, error: NovaCronError) -> None:
        """Whoever reads gets what has arrived, and then `error`; the engine still has to be told
        that nobody waits, as `close` says."""
        for _, stream in list(self._live.values()):
            stream.fail(error)

    def fail_all(self, error: NovaCronError) -> None:
        for _, stream in list(self._live.values()):
            stream.fail(error)
        self._live.clear()
        self._ending.clear()
        self._idle.set()

    async def wait_idle(self) -> None:
        await self._idle.wait()

    def _forget(self, request_id: str) -> None:
        self._live.pop(request_id, None)
        if not self._live:
            self._idle.set()


def id_in_use(request_id: str) -> InvalidRequest:
    return InvalidRequest(
        f"Request id '{request_id}' is in use by a running request.", param="request_id"
    )
