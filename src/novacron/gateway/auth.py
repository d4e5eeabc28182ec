"""Who calls: the credential of a request, and the principal behind it. Pure ASGI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from novacron.errors import NovaCronError, Unauthenticated
from novacron.gateway import socket_protocol
from novacron.gateway.console.pages import FILES
from novacron.gateway.error_handlers import error_response
from novacron.gateway.identity.principal import Authenticator, set_principal

OPEN_PATHS: Final = frozenset({"/health", "/ready", "/version"})
MOST_TOKEN_BYTES: Final = 16 * 1024


class Authentication:
    """Lets requests pass that bring a credential which `authenticator` knows, and notes whose it
    is; probes of health and version always pass, and so do the files of the console.

    The credential comes as `Authorization: Bearer TOKEN` or `x-api-key: TOKEN`; of WebSockets from
    browsers as a subprotocol (socket_protocol.py).
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_open(scope):
            try:
                token = sent_token(scope["headers"], is_socket=scope["type"] == "websocket")
                principal = await self._authenticator.authenticate(token)
                if principal is None:
                    raise Unauthenticated("The API key or token is not valid.", was_sent=True)
            except NovaCronError as error:
                await error_response(error)(scope, receive, send)
                return
            set_principal(scope, principal)
        await self._app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    return scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or scope["path"] in FILES


def sent_token(headers: Iterable[tuple[bytes, bytes]], *, is_socket: bool = False) -> bytes:
    """The one credential in `headers`, not empty. Raises Unauthenticated.

    Two that differ are refused: a proxy in front may have looked at the other one.
    """
    headers = tuple(headers)
    tokens = _tokens_of_socket(headers) if is_socket else set()
    for name, value in headers:
        if name == b"x-api-key":
            tokens.add(value.strip())
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Unauthenticated(
                    "Only the scheme Bearer is understood: send the header Authorization: Bearer "
                    "KEY.",
                    was_sent=True,
                )
            tokens.add(token.strip())
    tokens.discard(b"")
    if not tokens:
        raise Unauthenticated("An API key is required: send the header Authorization: Bearer KEY.")
    if len(tokens) > 1:
        raise Unauthenticated("Several API keys were sent, and they differ.", was_sent=True)
    [token] = tokens
    if len(token) > MOST_TOKEN_BYTES:
        raise Unauthenticated(
            f"The token has more than {MOST_TOKEN_BYTES} bytes, the most accepted.", was_sent=True
        )
    return token


def _tokens_of_socket(headers: tuple[tuple[bytes, bytes], ...]) -> set[bytes]:
    try:
        return {token.strip() for token in socket_protocol.tokens_in(headers)}
    except ValueError:
        raise Unauthenticated(
            "The subprotocol novacron.bearer. must go on with the key in base64url.", was_sent=True
        ) from None
