"""What every HTTP request passes through: an id and headers for its answer, a limit on its body, a
line in the log."""

from __future__ import annotations

import logging
import re
import time
from urllib.parse import quote
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacron.errors import BodyTooLarge
from novacron.gateway.error_handlers import error_response

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SCOPE_KEY = "novacron.request_id"

access_logger = logging.getLogger("novacron.access")


def request_id_of(scope: Scope) -> str:
    request_id: str = scope[_SCOPE_KEY]
    return request_id


class RequestId:
    """Gives each request an id, the client's own if it sent a sound one, and echoes it; and adds
    `headers` to every answer that does not have them."""

    def __init__(self, app: ASGIApp, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = sent if REQUEST_ID_PATTERN.fullmatch(sent) else uuid4().hex
        scope[_SCOPE_KEY] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
                present = {name for name, _ in message["headers"]}
                message["headers"] += [pair for pair in self._headers if pair[0] not in present]
            await send(message)

        await self._app(scope, receive, send_with_id)


class BodyLimit:
    """Refuses bodies of more than `max_bytes`, whether their length is announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await error_response(BodyTooLarge(self._max_bytes))(scope, receive, send)
            return
        num_bytes = 0

        async def receive_counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, receive_counted, send)


class AccessLog:
    """Logs each HTTP request: method, path, status and time; never a query, header or body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s = time.monotonic()
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            access_logger.info(
                "%s %s %d %.1f ms [%s]",
                scope["method"],
                quote(scope["path"]),  # a line break in it would forge a line of the log
                status,
                (time.monotonic() - start_s) * 1000,
                request_id_of(scope),
            )
