"""Headers put into answers on their way out, as ASGI has them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Message

RawHeader = tuple[bytes, bytes]


def set_headers(message: Message, pairs: Sequence[RawHeader]) -> None:
    """In place of those that have the same names. `message` starts a response."""
    names = {name for name, _ in pairs}
    message["headers"] = [*(one for one in message["headers"] if one[0] not in names), *pairs]


def add_missing_headers(message: Message, pairs: Sequence[RawHeader]) -> None:
    """Those whose names are not there."""
    present = {name for name, _ in message["headers"]}
    message["headers"] = [*message["headers"], *(one for one in pairs if one[0] not in present)]
