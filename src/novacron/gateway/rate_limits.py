"""Headers that tell with each answer where its caller stands, in the words of the path's dialect.
Pure ASGI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacron.gateway.answer_headers import set_headers
from novacron.gateway.anthropic.rate_limits import anthropic_limits

_PREFIX: Final = "x-ratelimit-"
_LIMITS_KEY: Final = "novacron.rate_limits"


class RateLimitHeaders:
    """For answers to calls that were reserved, and to those that were refused for their limits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = rate_limits_of(scope)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start" and limits:
                headers = _headers(limits, scope["path"]).items()
                set_headers(message, [(name.encode(), value.encode()) for name, value in headers])
            await send(message)

        await self._app(scope, receive, send_with_limits)


def rate_limits_of(scope: Scope) -> dict[str, str]:
    """What the answer to this request will tell, as accounts/standing.py words it; filled while it
    is made."""
    limits: dict[str, str] = scope.setdefault(_LIMITS_KEY, {})
    return limits


def _headers(limits: Mapping[str, str], path: str) -> dict[str, str]:
    told = {_PREFIX + name: value for name, value in limits.items()}
    return told | anthropic_limits(limits) if path.startswith("/v1/messages") else told
