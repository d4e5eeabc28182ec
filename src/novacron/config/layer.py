"""What one source of settings says, and where exactly it says so."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from novacron.config.coercion import coerce
from novacron.config.keys import Key
from novacron.errors import ConfigError


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: `detail` is the file and key path, the variable, or the flag."""

    kind: Literal["default", "file", "env", "flag"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".rstrip()


@dataclass(frozen=True)
class WithoutEffect:
    """A key that was understood and changes nothing, and why."""

    key: str
    value: object
    origin: Origin
    reason: str


class Layer:
    """What one source says. Refuses a setting that it was told twice."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.origins: dict[str, Origin] = {}
        self.without_effect: list[WithoutEffect] = []
        self.warnings: list[str] = []

    def set(self, key: Key, value: object, origin: Origin) -> None:
        if key.name in self.values:
            raise ConfigError(
                f"{key.name} is given twice: by {self.origins[key.name]} and by {origin}. "
                "Remove one of them."
            )
        try:
            self.values[key.name] = coerce(key, value)
        except ConfigError as error:
            shown = "(a secret)" if key.secret else repr(value)
            raise ConfigError(f"{key.name} is {shown} ({origin}): {error}") from None
        self.origins[key.name] = origin


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.replace("-", "_"), list(candidates), n=1)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
