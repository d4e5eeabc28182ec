"""`guardians` in a configuration file: the kinds, their options, and what they do by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from novacron.config.listings import NAME, need, texts_of
from novacron.config.quantities import parse_duration_s
from novacron.errors import ConfigError

STAGES: Final = ("input", "stream", "output", "post")
MODES: Final = ("enforce", "observe")
ACTIONS: Final = ("flag", "mask", "block")


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
_SLOW: Final = ("judge", "intent", "canary", "http")
_COMMON: Final = (
    "kind", "name", "stage", "mode", "action", "timeout", "share", "budget"
)  # fmt: skip


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


def parse_guardian(given: Mapping[str, object]) -> GuardianConfig:
    """Raises ConfigError."""
    name = str(given.get("name", given.get("kind")))
    kind_name = str(given.get("kind"))
    need(kind_name in KINDS, "guardians", f"there is no kind '{kind_name}'", *KINDS)
    kind = KINDS[kind_name]
    need(NAME.fullmatch(name) is not None, "guardians", f"{name[:64]!r} is no name")
    for key in given:
        allowed = (*_COMMON, *kind.options)
        need(key in allowed, "guardians", f"'{name}' has an unknown key '{key}'", *allowed)
    stages = texts_of(given.get("stage", kind.stages), "guardians", f"stage of '{name}'", STAGES)
    mode = _choice(given.get("mode", kind.mode), "guardians", f"mode of '{name}'", MODES)
    action = _choice(given.get("action", kind.action), "guardians", f"action of '{name}'", ACTIONS)
    need(
        not (mode == "enforce" and "post" in stages), "guardians",
        f"'{name}' is to enforce after the answer has gone out: take stage output, or mode observe",
    )  # fmt: skip
    need(action != "mask" or kind.can_mask, "guardians", f"{kind_name} cannot mask: flag or block")
    need(
        kind_name != "canary" or (mode, stages) == ("observe", ("post",)), "guardians",
        f"'{name}' is a canary: it can only observe, at stage post",
    )  # fmt: skip
    for option in kind.needed:
        need(bool(given.get(option)), "guardians", f"'{name}' needs '{option}'")
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


def _choice(value: object, key: str, what: str, allowed: Sequence[str]) -> str:
    need(value in allowed, key, f"{what} is {value!r}", *allowed)
    return str(value)


def _typed(value: object, kind: type, what: str) -> object:
    is_right = isinstance(value, int | float if kind is float else kind)
    if kind is not bool and isinstance(value, bool):
        is_right = False
    need(is_right, "guardians", f"{what} is {value!r}, expected {_TYPENAMES[kind]}")
    return value


_TYPENAMES: Final[Mapping[type, str]] = {
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
    need(seconds > 0, "guardians", f"timeout of '{name}' is {value!r}, expected more than 0")
    return seconds


def _share(value: object, what: str) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    need(0 < number <= 1, "guardians", f"{what} is {value!r}, expected a number above 0 up to 1")
    return float(number)
