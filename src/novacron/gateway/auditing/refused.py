"""Records of what was refused with 401 or 403, whoever refused it. Pure ASGI."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacron.audit.log import AuditLog
from novacron.audit.record import AuditRecord
from novacron.gateway.auditing.access import access_of, now, record_of

_REFUSED: Final = (401, 403)
_STARTS: Final = ("http.response.start", "websocket.http.response.start")
_MOST_A_SECOND: Final = 100


class RefusedAccess:
    """Records one by one up to 100 a second, so that nobody fills the disk with wrong keys; of
    more, their number, with the first of a later second."""

    def __init__(
        self, app: ASGIApp, log: AuditLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._log = log
        self._clock = clock
        self._second = 0
        self._num_in_second = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_seen(message: Message) -> None:
            if message["type"] in _STARTS and message["status"] in _REFUSED:
                self._see(scope, message["status"])
            await send(message)

        await self._app(scope, receive, send_seen)

    def _see(self, scope: Scope, status: int) -> None:
        second = int(self._clock())
        if second != self._second:
            self._tell_the_rest()
            self._second, self._num_in_second = second, 0
        self._num_in_second += 1
        if self._num_in_second <= _MOST_A_SECOND:
            self._log.note(record_of(access_of(scope), "refused", scope, "refused", status))

    def _tell_the_rest(self) -> None:
        if self._num_in_second > _MOST_A_SECOND:
            more = self._num_in_second - _MOST_A_SECOND
            self._log.note(AuditRecord(time=now(), kind="refused", outcome="refused", count=more))
