"""URLs as they may be shown: without what opens the door."""

from __future__ import annotations

import re
from typing import Final

_USER_INFO: Final = re.compile(r"(?<=://).*@", re.DOTALL)
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)


def mask_url(url: str) -> str:
    """The URL with *** for user and password, and for all of a query, which may hold keys."""
    return _QUERY.sub("?***", _USER_INFO.sub("***@", url))
