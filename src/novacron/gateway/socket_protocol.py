"""Subprotocols of WebSockets: how a browser, which can set no headers, sends its credential.

    new WebSocket(url, ["novacron", "novacron.bearer." + base64url(key)])

The server chooses "novacron", so the key is never sent back; and it stands in no address, which
would end up in logs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

NAME: Final = "novacron"
_BEARER: Final = b"novacron.bearer."


def offered(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The subprotocols that a client offers, in its order."""
    values = (value for name, value in headers if name == b"sec-websocket-protocol")
    return [part.strip() for value in values for part in value.split(b",") if part.strip()]


def tokens_in(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Credentials among them, decoded. Raises ValueError for one that is not base64url."""
    found = []
    for one in offered(headers):
        if one.startswith(_BEARER):
            text = one.removeprefix(_BEARER).rstrip(b"=")
            padding = b"=" * (-len(text) % 4)
            try:
                found.append(base64.b64decode(text + padding, altchars=b"-_", validate=True))
            except binascii.Error as error:
                raise ValueError("not base64url") from error
    return found


def chosen(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What to answer: ours, if it was offered."""
    return NAME if NAME.encode() in offered(headers) else None
