"""Records of administration: nothing is done, and nothing told, that the log has not got.

The check hangs on the routes themselves, behind that of permissions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacron.audit.log import AuditLog
from novacron.errors import AuditUnavailable
from novacron.gateway.auditing.access import access_of, is_administrative, record_of, target_of
from novacron.gateway.error_handlers import error_response
from novacron.gateway.identity.route_permissions import ROUTE_PERMISSIONS, names_of

_READS: Final = ("GET", "HEAD")
_FIRST_ERROR: Final = 400
_REFUSED: Final = (401, 403)


def audit_administration(routes: Iterable[BaseRoute], log: AuditLog) -> None:
    """Make the administrative ones of `routes` write records. Comes before `guard`."""
    for route in routes:
        names = [
            name for name in names_of(route) if is_administrative(ROUTE_PERMISSIONS.get(name, ""))
        ]
        if names:
            assert isinstance(route, Route | APIRoute)
            methods = {name.partition(" ")[0] for name in names}
            if "GET" in methods:
                methods.add("HEAD")
            route.app = RecordedAdministration(route.app, log, frozenset(methods))


class RecordedAdministration:
    """A change has a record on the disk before it is made (`begun`), and another with its end; what
    is read, one before it is told. 503 where they cannot be written.

    Of a change that was made and whose end cannot be written, the client hears as if it could: the
    log has its beginning.
    """

    def __init__(self, app: ASGIApp, log: AuditLog, methods: frozenset[str]) -> None:
        self._app = app
        self._log = log
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            await self._app(scope, receive, send)
            return
        is_read = scope["method"] in _READS
        if not is_read:
            try:
                await self._log.write(record_of(access_of(scope), "admin", scope, "begun"))
            except AuditUnavailable as error:
                await error_response(error)(scope, receive, send)
                return
        await _Recorded(self._app, self._log, is_read=is_read).run(scope, receive, send)


class _Recorded:
    """One access."""

    def __init__(self, app: ASGIApp, log: AuditLog, *, is_read: bool) -> None:
        self._app = app
        self._log = log
        self._is_read = is_read
        self._has_ended = False
        self._is_withheld = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_once_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                try:
                    await self._end(scope, message["status"])
                except AuditUnavailable as error:
                    if self._is_read:
                        self._is_withheld = True
                        await error_response(error)(scope, receive, send)
            if not self._is_withheld:
                await send(message)

        try:
            await self._app(scope, receive, send_once_recorded)
        finally:
            if not self._has_ended:  # by a bug, or since the client went away
                self._log.note(record_of(access_of(scope), "admin", scope, "failed", 500))

    async def _end(self, scope: Scope, status: int) -> None:
        """Raises AuditUnavailable."""
        self._has_ended = True
        target = target_of(scope) if status < _FIRST_ERROR else ""
        outcome = _outcome(status)
        await self._log.write(record_of(access_of(scope), "admin", scope, outcome, status, target))


def _outcome(status: int) -> str:
    if status < _FIRST_ERROR:
        return "ok"
    return "refused" if status in _REFUSED else "failed"
