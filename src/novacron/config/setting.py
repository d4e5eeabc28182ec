"""How a setting is declared and checked, whichever component it is of."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from novacron.errors import ConfigError


def setting(
    default: Any, help: str, *, flags: tuple[str, ...] = (), unit: str = "", secret: bool = False
) -> Any:
    """A documented dataclass field. `flags` are extra spellings; `unit` is "bytes" or "s" where
    the value may be written as a quantity or a duration; a secret is never shown."""
    metadata = {"help": help, "flags": flags, "unit": unit, "secret": secret}
    return field(default=default, metadata=metadata, repr=not secret)


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    """The message starts with the key: `load` finds the origin of the value by it."""
    if not condition:
        raise ConfigError(f"{key} is {value!r}: {remedy}")
