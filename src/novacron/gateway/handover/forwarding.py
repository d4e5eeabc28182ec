"""What goes along when a coordinator asks another one for a client. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from novacron.gateway.socket_protocol import tokens_in

FORWARDED: Final = "x-novacron-forwarded"  # whoever gets this does not pass it on again
_CREDENTIALS: Final = ("authorization", "x-api-key")

Credentials = Mapping[str, str]


class PeerLost(Exception):
    """A coordinator does not answer, or does not know the stream that was its own."""


def credentials_of(headers: Iterable[tuple[str, str]]) -> Credentials:
    """Those that the client has sent to us; a browser's, sent with a WebSocket, as a header."""
    sent = list(headers)
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent]
    of_browser = [("authorization", f"Bearer {token.decode()}") for token in tokens_in(encoded)]
    return dict([*of_browser, *(one for one in sent if one[0] in _CREDENTIALS)])


def was_forwarded(headers: Mapping[str, str]) -> bool:
    return FORWARDED in headers
