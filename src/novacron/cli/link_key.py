"""Where this user keeps the key of links, unless told otherwise."""

from __future__ import annotations

from pathlib import Path

_DEFAULT = Path("~/.config/novacron/link.key")


def link_key_file(given: str) -> Path:
    return Path(given).expanduser() if given else _DEFAULT.expanduser()
