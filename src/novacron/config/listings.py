"""What lists in a configuration file have in common: names, texts, and errors that name the key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from novacron.errors import ConfigError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def need(condition: bool, key: str, problem: str, *candidates: str) -> None:
    """The message starts with the key: `load` finds the origin of the value by it."""
    if not condition:
        choice = f"; there are {', '.join(candidates)}" if candidates else ""
        raise ConfigError(f"{key} cannot be used: {problem}{choice}.")


def texts_of(
    value: object, key: str, what: str, allowed: Sequence[str] | None = None
) -> tuple[str, ...]:
    """A text or a list of texts."""
    parts = (value,) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{key} cannot be used: {what} is no text and no list of texts.")
    texts = tuple(dict.fromkeys(parts))
    for text in texts:
        need(allowed is None or text in allowed, key, f"{what} is '{text}'", *(allowed or ()))
    return texts
