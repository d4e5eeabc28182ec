"""What every HTTP request passes through: an id and headers for its answer, a limit on its body, a
line in the log."""

from __future__ import annotations

import logging
import re
import time
from secrets import token_hex
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacron.errors import BodyTooLarge
from novacron.gateway.answer_headers import RawHeader, add_missing_headers, set_headers
from novacron.gateway.error_handlers import error_response

REQUEST_ID_HEADER = "x-request-id"
_HEADER = REQUEST_ID_HEADER.encode()
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SCOPE_KEY = "novacron.request_id"
_MADE_KEY = "novacron.made_request_id"  # empty: the client has chosen it

access_logger = logging.getLogger("novacron.access")


def request_id_of(scope: Scope) -> str:
    request_id: str = scope[_SCOPE_KEY]
    return request_id


def made_id_of(scope: Scope) -> str:
    """The request's id if the server has made it; else empty."""
    made: str = scope.get(_MADE_KEY, "")
    return made


def audited_id(request_id: str, made: str) -> str:
    """An id as the audit log has it: those that clients have chosen say so, for nobody may pass one
    off as the server's."""
    return request_id if made and request_id == made else f"client:{request_id}"


class RequestId:
    """Gives each request an id, the client's own if it sent a sound one, and echoes it; and adds
    `headers` to every answer that does not have them."""

    def __init__(self, app: ASGIApp, headers: tuple[RawHeader, ...] = ()) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == _HEADER), b"").decode(
            "latin-1"
        )
        made = token_hex(16)
        request_id = sent if REQUEST_ID_PATTERN.fullmatch(sent) else made
        scope[_SCOPE_KEY] = request_id
        scope[_MADE_KEY] = "" if request_id == sent else made

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_missing_headers(message, self._headers)
                set_headers(message, ((_HEADER, request_id.encode()),))
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
        announced = next((v for name, v in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self._max_bytes:
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
