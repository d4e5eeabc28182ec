"""What a request wants of the response cache, and what came of it: both in headers.

`x-novacron-cache` of a request: on (keep and answer also what is sampled without a seed), off (pass
by), refresh (compute anew, and keep), semantic (answers to questions of the same meaning will do).
Of an answer: hit, miss or bypass; `x-novacron-cache-kind` and `age` tell more of a hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacron.errors import InvalidRequest

CACHE_HEADER: Final = "x-novacron-cache"
_KIND_HEADER: Final = "x-novacron-cache-kind"
_SCOPE_KEY: Final = "novacron.cache_ticket"

Wish = Literal["", "on", "off", "refresh", "semantic"]
_WISHES: Final[tuple[Wish, ...]] = ("on", "off", "refresh", "semantic")


@dataclass
class CacheTicket:
    """Of one HTTP request; of several calls in it, the last one tells what came of it."""

    wish: Wish = ""
    outcome: Literal["", "hit", "miss", "bypass"] = ""
    kind: Literal["", "exact", "semantic"] = ""
    age_s: float = 0.0
    path: str = ""
    vector: Sequence[float] | None = None  # of the question, once it was made
    most_age_s: float = inf  # of an answer that is found or kept, by the tenant's policy


def ticket_of(connection: HTTPConnection) -> CacheTicket:
    """One per HTTP request. Raises InvalidRequest for a wish that is not known."""
    scope = connection.scope
    if _SCOPE_KEY not in scope:
        sent = connection.headers.get(CACHE_HEADER, "").strip().lower()
        wish = next((one for one in _WISHES if one == sent), None)
        if sent and wish is None:
            raise InvalidRequest(
                f"{CACHE_HEADER} is '{sent[:40]}': give {', '.join(_WISHES)}, or leave it out.",
                param=CACHE_HEADER,
            )
        scope[_SCOPE_KEY] = CacheTicket(wish or "", path=scope.get("path", ""))
    ticket: CacheTicket = scope[_SCOPE_KEY]
    return ticket


class CacheHeaders:
    """Tells in headers what came of the ticket, if there is one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_outcome(message: Message) -> None:
            ticket = scope.get(_SCOPE_KEY)
            if message["type"] == "http.response.start" and ticket and ticket.outcome:
                headers = MutableHeaders(scope=message)
                headers[CACHE_HEADER] = ticket.outcome
                if ticket.kind:
                    headers[_KIND_HEADER] = ticket.kind
                    headers["age"] = str(int(ticket.age_s))
            await send(message)

        await self._app(scope, receive, send_with_outcome)
