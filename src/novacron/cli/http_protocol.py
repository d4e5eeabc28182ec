"""HTTP as uvicorn speaks it with httptools, with an end to everything that a client may draw out.

uvicorn waits for a request as long as it takes, collects headers without a limit, and accepts any
number of connections, all before the application, and with it the check of the key, is asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from novacron.errors import Overloaded, ReceiveTimeout
from novacron.gateway.auth import OPEN_PATHS
from novacron.gateway.error_handlers import error_response
from novacron.gateway.error_mapping import other_error_body
from novacron.gateway.json_body import JsonResponse

_LAST_LOOK_S = 0.001  # more than 0: from a timer that is due at once, uvloop reads nothing before

MAX_HEADER_BYTES = 64 * 1024
SPARE_CONNECTIONS = 64  # beyond the limit: for probes, and for telling others that it is reached


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What one client, and all of them together, may take. See ServerConfig."""

    max_connections: int
    receive_timeout_s: float


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection, over which each request has to arrive whole and in time.

    A server that was held (stopped, or without a core) has not read what came meanwhile when its
    timers are due. So the connection is looked at once more before it ends for being silent:
    whoever has sent a request in time gets an answer.

    Headers beyond MAX_HEADER_BYTES get 431, whether they end or not. Above the limit of
    connections, new ones get 503; above that plus SPARE_CONNECTIONS they are not accepted.
    """

    def __init__(self, *args: Any, limits: HttpLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._in_headers = False
        self._num_header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections + SPARE_CONNECTIONS:
            transport.abort()
        else:
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._num_header_bytes = 0
        self._expect_request()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._are_headers_too_large():
            self.app = _refuse_headers
        elif self._is_full():
            self.app = self._refuse_unless_probe
        else:
            self.app = self.config.loaded_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._end_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._deadline is not None:  # the next request, begun meanwhile, has all its time now
            self._end_waiting()
            self._expect_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers and not self.transport.is_closing():
            self._num_header_bytes += len(data)
            if self._num_header_bytes > MAX_HEADER_BYTES:
                self._answer_and_close(_headers_refusal())

    def handle_websocket_upgrade(self) -> None:
        self._end_waiting()
        if self._are_headers_too_large():
            self._answer_and_close(_headers_refusal())
        elif self._is_full():
            self._answer_and_close(error_response(self._too_many()))
        else:
            super().handle_websocket_upgrade()

    def _are_headers_too_large(self) -> bool:
        num_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return num_bytes > MAX_HEADER_BYTES

    def _is_full(self) -> bool:
        return len(self.connections) > self._limits.max_connections

    def _too_many(self) -> Overloaded:
        return Overloaded(
            f"{self._limits.max_connections} connections are open, the most accepted here. Close "
            "those that are not used, try again later, or raise max_connections."
        )

    async def _refuse_unless_probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A server that is busy must not look dead to whoever would restart it."""
        if scope["path"] in OPEN_PATHS:
            await self.config.loaded_app(scope, receive, send)
        else:
            await _last_response(error_response(self._too_many()))(scope, receive, send)

    def _expect_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(
                self._limits.receive_timeout_s, self._look_once_more
            )

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            _LAST_LOOK_S, super().timeout_keep_alive_handler
        )

    def _look_once_more(self) -> None:
        self._deadline = self.loop.call_later(_LAST_LOOK_S, self._stop_waiting)

    def _stop_waiting(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._keeps_client_waiting():
            self._expect_request()
        elif self.scope is None or (not self._in_headers and self.cycle.response_started):
            self.transport.close()  # opened in advance, or answered before all of it was sent
        else:
            self._answer_and_close(error_response(ReceiveTimeout(self._limits.receive_timeout_s)))

    def _keeps_client_waiting(self) -> bool:
        """We do not read at the moment, or still answer the request before this one."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return self.flow.read_paused or (self._in_headers and is_answering)

    def _answer_and_close(self, response: Response) -> None:
        headers = [*response.raw_headers, (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        status_line = STATUS_LINE[response.status_code]
        self.transport.write(b"%b%b\r\n%b" % (status_line, lines, bytes(response.body)))
        self.transport.close()


def _headers_refusal() -> Response:
    message = f"The headers exceed {MAX_HEADER_BYTES} bytes."
    return JsonResponse(other_error_body(431, message), 431)


async def _refuse_headers(scope: Scope, receive: Receive, send: Send) -> None:
    await _last_response(_headers_refusal())(scope, receive, send)


def _last_response(response: Response) -> Response:
    """The response, after which the connection ends."""
    response.headers["connection"] = "close"
    return response
