"""`specialists` in a configuration file: names with a system prompt and sampling of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from novacron.config.listings import NAME, need, texts_of

FALLBACK_REASONS: Final = ("error", "block")
_KEYS: Final = ("name", "model", "system", "sampling", "guardians", "fallback", "fallback_on")


@dataclass(frozen=True, kw_only=True)
class SpecialistConfig:
    """A name under which requests get a model, a system prompt and sampling of its own.

    `guardians`: names of those that look at its calls; None: all. `fallback`: names of models or
    specialists that answer in its place, in turn, where it could not (`fallback_on`).
    """

    name: str
    model: str = ""
    system: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    guardians: tuple[str, ...] | None = None
    fallback: tuple[str, ...] = ()
    fallback_on: tuple[str, ...] = FALLBACK_REASONS


def parse_specialist(given: Mapping[str, object]) -> SpecialistConfig:
    """Raises ConfigError."""
    name = str(given.get("name", ""))
    what = f"'{name}'"
    need(NAME.fullmatch(name) is not None, "specialists", f"{name[:64]!r} is no name")
    for key in given:
        need(key in _KEYS, "specialists", f"{what} has an unknown key '{key}'", *_KEYS)
    sampling = given.get("sampling") or {}
    need(isinstance(sampling, Mapping), "specialists", f"sampling of {what} is no mapping")
    guardians = given.get("guardians")
    return SpecialistConfig(
        name=name,
        model=str(given.get("model") or ""),
        system=str(given.get("system") or ""),
        sampling=dict(sampling),  # type: ignore[call-overload]
        guardians=None
        if guardians is None
        else texts_of(guardians, "specialists", f"guardians of {what}"),
        fallback=texts_of(given.get("fallback") or (), "specialists", f"fallback of {what}"),
        fallback_on=texts_of(
            given.get("fallback_on", FALLBACK_REASONS),
            "specialists",
            f"fallback_on of {what}",
            FALLBACK_REASONS,
        ),
    )
