"""Who may call: a fixed set of keys, sent as bearer tokens."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from novacron.errors import Unauthenticated
from novacron.gateway.error_handlers import error_response

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})


class ApiKeyAuth:
    """Lets requests pass that bring one of `keys`; probes of health and version always pass.

    The key comes as `Authorization: Bearer KEY` or `x-api-key: KEY`.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = tuple(key.encode() for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"] not in OPEN_PATHS:
            sent = sent_key(Headers(scope=scope))
            if sent is None or not self._is_valid(sent):
                await error_response(_refusal(sent))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_valid(self, sent: str) -> bool:
        """In a time that does not tell which key was nearly right."""
        matches = [hmac.compare_digest(sent.encode("latin-1"), key) for key in self._keys]
        return any(matches)


def sent_key(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-api-key")


def _refusal(sent: str | None) -> Unauthenticated:
    if sent is None:
        return Unauthenticated("An API key is required: send the header Authorization: Bearer KEY.")
    return Unauthenticated("The API key is not valid.")
