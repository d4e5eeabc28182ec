"""What all routes share: the engine, the model's names, the running calls, and how to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient, EngineState
from novacron.errors import InvalidRequest, NovaCronError
from novacron.gateway.calls import Call, CallOrigin, Calls, Choice, collect
from novacron.gateway.error_mapping import error_body
from novacron.gateway.middleware import request_id_of
from novacron.gateway.openai.responses import encode
from novacron.gateway.served_model import ServedModel
from novacron.gateway.streaming import DONE, EventStreamResponse, frame, unless_disconnected
from novacron.observability.metrics import EngineSnapshot, Metrics
from novacron.records.output import RequestOutput

P = ParamSpec("P")
T = TypeVar("T")

_INLINE_BYTES = 16 * 1024  # parsed on the event loop; more would make other streams wait


class Reply(Protocol):
    """A call, and its outputs in the words of one API, chunk by chunk."""

    @property
    def call(self) -> Call: ...

    def frames(self, output: RequestOutput) -> bytes: ...

    def last_frames(self) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class Service:
    """One engine, and everything around it that routes of all APIs use."""

    client: EngineClient
    config: ServerConfig
    model: ServedModel
    metrics: Metrics
    calls: Calls
    worker_pids: Callable[[], tuple[int, ...]]

    def engine_snapshot(self) -> EngineSnapshot:
        client = self.client
        return EngineSnapshot(
            state=client.state.value,
            states=tuple(state.value for state in EngineState),
            stats=client.stats,
            spec=self.model.spec,
            num_restarts=client.num_restarts,
        )

    def origin(
        self,
        prefix: str,
        connection: HTTPConnection,
        model: str | None,
        request_id: str | None = None,
    ) -> CallOrigin:
        """Ids and model of a call. Raises ModelNotFound.

        `request_id` is the one in the body, which goes before the header's. Either shows in the
        answer's id.
        """
        return CallOrigin(
            call_id=prefix + (request_id or request_id_of(connection.scope)),
            request_id=request_id or request_id_of(connection.scope),
            model=self.model.resolve(model),
            created=int(time.time()),
            arrival_time_s=time.monotonic(),
        )

    async def whole(self, request: Request, call: Call) -> tuple[Choice, ...]:
        """Run the call to its end, or until the client goes away."""
        return await unless_disconnected(request, collect(call, self.calls.run(call)))

    def stream(self, reply: Reply) -> Response:
        """Run the call of `reply`, and send its chunks as they come."""
        return EventStreamResponse(
            _frames(self.calls.run(reply.call), reply),
            error_frame=_error_frame,
            keep_alive_s=self.config.keep_alive_interval,
        )


async def parse(
    connection: HTTPConnection, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """`function(...)`, in a thread if what was sent is long: tokenizing a book takes a while."""
    announced = connection.headers.get("content-length", "")
    try:
        if announced.isdecimal() and int(announced) <= _INLINE_BYTES:
            return function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)
    except RecursionError as error:  # as deep as the body could just be read, but not written
        raise InvalidRequest("The body is nested too deeply.") from error


async def _frames(
    outputs: AsyncGenerator[RequestOutput, None], reply: Reply
) -> AsyncGenerator[bytes, None]:
    async with aclosing(outputs):
        async for output in outputs:
            if frames := reply.frames(output):
                yield frames
    yield reply.last_frames()


def _error_frame(error: NovaCronError) -> bytes:
    return frame(encode(error_body(error))) + DONE
