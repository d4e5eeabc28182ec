"""Which web pages may call a server that asks for no key.

Browsers let any page post to any address, this machine's own included, and open WebSockets to it;
such a page could unload the model or read its answers. With keys there is no need to check: pages
of others have none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from novacron.errors import OriginNotAllowed
from novacron.gateway.error_handlers import error_response

_ONLY_READ = frozenset({"GET", "HEAD", "OPTIONS"})  # whose answers the browser keeps from the page
_OWN_PAGE = frozenset({"same-origin", "none"})


class OriginCheck:
    """Refuses what browsers send for pages of an origin that is neither ours nor in `allowed`.

    Clients that are no browsers send no origin, and pass. Source of the order of the tests: Go's
    net/http.CrossOriginProtection.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" or scope.get("method", "GET") not in _ONLY_READ:
            headers = Headers(scope=scope)
            if not self._may_call(headers):
                refusal = OriginNotAllowed(headers.get("origin", ""))
                await error_response(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _may_call(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or origin in self._allowed or "*" in self._allowed:
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in _OWN_PAGE
        return _address(origin) == headers.get("host")


def _address(origin: str) -> str | None:
    """Host and port. None for what is no address, such as the "null" of a sandboxed page."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
