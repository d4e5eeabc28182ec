"""Which replica served a conversation last. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_MOST_SESSIONS: Final = 65536


class SessionHomes:
    """Remembers the sessions used last."""

    def __init__(self, most: int = _MOST_SESSIONS) -> None:
        self._most = most
        self._homes: OrderedDict[bytes, str] = OrderedDict()

    def home_of(self, session: bytes) -> str:
        """Empty if there is no session, or none is known of it."""
        return self._homes.get(session, "")

    def settle(self, session: bytes, replica_id: str) -> None:
        if not session:
            return
        self._homes[session] = replica_id
        self._homes.move_to_end(session)
        if len(self._homes) > self._most:
            self._homes.popitem(last=False)
