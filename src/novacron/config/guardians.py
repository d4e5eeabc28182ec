"""`guardians` and `specialists` in a configuration file, and what they may say.

guardians:
  - {kind: pii, stage: [input, stream], action: mask}
  - {kind: judge, name: manners, rule: "No insults.", mode: observe, share: 0.1}
specialists:
  - {name: lawyer, system: "You answer questions of law.", guardians: [pii], fallback: [helper]}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from novacron.config.engine import require, setting
from novacron.config.quantities import parse_duration_s
from novacron.errors import ConfigError

STAGES: Final = ("input", "stream", "output", "post")
MODES: Final = ("enforce", "observe")
ACTIONS: Final = ("flag", "mask", "block")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class _Kind:
    """What a kind of guardian does unless told otherwise, and its options: name -> type."""

    stages: tuple[str, ...]
    mode: str
    action: str
    options: Mapping[str, type]
    needed: tuple[str, ...] = ()
    can_mask: bool = False


KINDS: Final[Mapping[str, _Kind]] = {
    "pii": _Kind(("input", "stream"), "enforce", "mask", {"entities": list}, can_mask=True),
    "secrets": _Kind(("input", "stream"), "enforce", "mask", {}, can_mask=True),
    "injection": _Kind(("input",), "enforce", "block", {}, can_mask=True),
    "words": _Kind(
        ("input", "stream"), "enforce", "block", {"words": list}, ("words",), can_mask=True
    ),
    "degeneration": _Kind(("post",), "observe", "flag", {"stride": int}),
    "format": _Kind(
        ("output",), "enforce", "block", {"json": bool, "fields": dict, "max_characters": int}
    ),
    "intent": _Kind(("post",), "observe", "flag", {"floor": float, "stride": int}),
    "canary": _Kind(
        ("post",), "observe", "flag", {"questions": list, "floor": float}, ("questions",)
    ),
    "judge": _Kind(("post",), "observe", "flag", {"rule": str, "stride": int}, ("rule",)),
    "http": _Kind(
        ("input", "output"), "enforce", "block", {"url": str, "token": str, "stride": int},
        ("url",), can_mask=True,
    ),
}  # fmt: skip
_COMMON: Final = (
    "kind", "name", "stage", "mode", "action", "timeout", "share", "budget"
)  # fmt: skip
_SPECIALIST: Final = (
    "name", "model", "system", "sampling", "guardians", "fallback", "fallback_on"
)  # fmt: skip
FALLBACK_REASONS: Final = ("error", "block")


@dataclass(frozen=True, kw_only=True)
class GuardianConfig:
    """One guardian. `options` are those of its kind."""

    kind: str
    name: str
    stages: tuple[str, ...]
    mode: str
    action: str
    timeout_s: float
    share: float
    budget: float
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


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


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Who judges prompts and answers, and which names answer in which way."""

    guardians: tuple[Mapping[str, object], ...] = setting(
        (), "who judges prompts and answers, as a list of guardians; see docs/guardians.md"
    )
    guardian_deadline: float = setting(
        2.0, "guardians that have not judged a text within so long have not passed it", unit="s"
    )
    guardian_cache_entries: int = setting(
        4096, "verdicts that are kept for texts that come again; 0: none"
    )
    specialists: tuple[Mapping[str, object], ...] = setting(
        (),
        "further model names, each with a system prompt, sampling and guardians of its own; see "
        "docs/guardians.md",
    )

    def __post_init__(self) -> None:
        require(
            self.guardian_deadline > 0, "guardian_deadline", self.guardian_deadline,
            "give a positive number of seconds",
        )  # fmt: skip
        require(
            self.guardian_cache_entries >= 0, "guardian_cache_entries",
            self.guardian_cache_entries, "give 0 or more",
        )  # fmt: skip
        known = {one.name for one in self.guardian_list}
        names = [one.name for one in self.specialist_list]
        for one in self.specialist_list:
            for name in one.guardians or ():
                _need(name in known, "specialists", f"{one.name} has an unknown guardian '{name}'")
            _need(one.name not in one.fallback, "specialists", f"{one.name} falls back on itself")
        _need(len(names) == len(set(names)), "specialists", "two have the same name")

    @property
    def guardian_list(self) -> tuple[GuardianConfig, ...]:
        """Raises ConfigError."""
        parsed = tuple(map(_guardian, self.guardians))
        names = [one.name for one in parsed]
        twice = {name for name in names if names.count(name) > 1}
        _need(not twice, "guardians", f"'{min(twice, default='')}' stands there twice; give names")
        return parsed

    @property
    def specialist_list(self) -> tuple[SpecialistConfig, ...]:
        """Raises ConfigError."""
        return tuple(map(_specialist, self.specialists))


def _guardian(given: Mapping[str, object]) -> GuardianConfig:
    name = str(given.get("name", given.get("kind")))
    kind_name = str(given.get("kind"))
    _need(kind_name in KINDS, "guardians", f"there is no kind '{kind_name}'", *KINDS)
    kind = KINDS[kind_name]
    _need(_NAME.fullmatch(name) is not None, "guardians", f"{name[:64]!r} is no name")
    for key in given:
        allowed = (*_COMMON, *kind.options)
        _need(key in allowed, "guardians", f"'{name}' has an unknown key '{key}'", *allowed)
    stages = _texts(given.get("stage", kind.stages), "guardians", f"stage of '{name}'", STAGES)
    mode = _choice(given.get("mode", kind.mode), "guardians", f"mode of '{name}'", MODES)
    action = _choice(given.get("action", kind.action), "guardians", f"action of '{name}'", ACTIONS)
    _need(
        not (mode == "enforce" and "post" in stages), "guardians",
        f"'{name}' is to enforce after the answer has gone out: take stage output, or mode observe",
    )  # fmt: skip
    _need(action != "mask" or kind.can_mask, "guardians", f"{kind_name} cannot mask: flag or block")
    _need(
        kind_name != "canary" or (mode, stages) == ("observe", ("post",)), "guardians",
        f"'{name}' is a canary: it can only observe, at stage post",
    )  # fmt: skip
    for option in kind.needed:
        _need(bool(given.get(option)), "guardians", f"'{name}' needs '{option}'")
    options = {
        option: _typed(given[option], kind.options[option], f"{option} of '{name}'")
        for option in kind.options
        if given.get(option) is not None
    }
    return GuardianConfig(
        kind=kind_name,
        name=name,
        stages=stages,
        mode=mode,
        action=action,
        timeout_s=_seconds(given.get("timeout", 1.0 if kind_name not in _SLOW else 10.0), name),
        share=_share(given.get("share", 1.0), f"share of '{name}'"),
        budget=_share(given.get("budget", 1.0), f"budget of '{name}'"),
        options=options,
    )


_SLOW: Final = ("judge", "intent", "canary", "http")


def _specialist(given: Mapping[str, object]) -> SpecialistConfig:
    name = str(given.get("name", ""))
    what = f"'{name}'"
    _need(_NAME.fullmatch(name) is not None, "specialists", f"{name[:64]!r} is no name")
    for key in given:
        _need(key in _SPECIALIST, "specialists", f"{what} has an unknown key '{key}'", *_SPECIALIST)
    sampling = given.get("sampling") or {}
    _need(isinstance(sampling, Mapping), "specialists", f"sampling of {what} is no mapping")
    guardians = given.get("guardians")
    return SpecialistConfig(
        name=name,
        model=str(given.get("model") or ""),
        system=str(given.get("system") or ""),
        sampling=dict(sampling),  # type: ignore[call-overload]
        guardians=None
        if guardians is None
        else _texts(guardians, "specialists", f"guardians of {what}"),
        fallback=_texts(given.get("fallback") or (), "specialists", f"fallback of {what}"),
        fallback_on=_texts(
            given.get("fallback_on", FALLBACK_REASONS),
            "specialists",
            f"fallback_on of {what}",
            FALLBACK_REASONS,
        ),
    )


def _need(condition: bool, key: str, problem: str, *candidates: str) -> None:
    """The message starts with the key: `load` finds the origin of the value by it."""
    if not condition:
        choice = f"; there are {', '.join(candidates)}" if candidates else ""
        raise ConfigError(f"{key} cannot be used: {problem}{choice}.")


def _texts(
    value: object, key: str, what: str, allowed: Sequence[str] | None = None
) -> tuple[str, ...]:
    """A text or a list of texts."""
    parts = (value,) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{key} cannot be used: {what} is no text and no list of texts.")
    texts = tuple(dict.fromkeys(parts))
    for text in texts:
        _need(allowed is None or text in allowed, key, f"{what} is '{text}'", *(allowed or ()))
    return texts


def _choice(value: object, key: str, what: str, allowed: Sequence[str]) -> str:
    _need(value in allowed, key, f"{what} is {value!r}", *allowed)
    return str(value)


def _typed(value: object, kind: type, what: str) -> object:
    is_right = isinstance(value, int | float if kind is float else kind)
    if kind is not bool and isinstance(value, bool):
        is_right = False
    _need(is_right, "guardians", f"{what} is {value!r}, expected {_TYPE_NAMES[kind]}")
    return value


_TYPE_NAMES: Final[Mapping[type, str]] = {
    list: "a list",
    dict: "a mapping",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _seconds(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"guardians cannot be used: timeout of '{name}' is {value!r}.")
    try:
        seconds = float(parse_duration_s(value))
    except ConfigError as error:
        raise ConfigError(f"guardians cannot be used: timeout of '{name}': {error}.") from None
    _need(seconds > 0, "guardians", f"timeout of '{name}' is {value!r}, expected more than 0")
    return seconds


def _share(value: object, what: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _need(
        is_number and 0 < float(value) <= 1, "guardians",  # type: ignore[arg-type]
        f"{what} is {value!r}, expected a number above 0 up to 1",
    )  # fmt: skip
    return float(value)  # type: ignore[arg-type]
