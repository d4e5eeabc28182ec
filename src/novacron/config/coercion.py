"""A value as people write it -> the value that the annotation of a setting asks for.

Values come as text (environment), as YAML gives them, or from parsed flags; the rules are the same.
"""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import Literal, get_args, get_origin

import yaml

from novacron.config.keys import Key
from novacron.config.quantities import parse_bytes, parse_duration_s
from novacron.errors import ConfigError

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_SYNONYMS = {  # spellings of other servers and libraries
    "float": "float32",
    "fp32": "float32",
    "half": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8_e4m3": "fp8",
    "warn": "warning",
}


def coerce(key: Key, value: object) -> object:
    """The typed value of a setting. Raises ConfigError that tells what was expected."""
    kinds = get_args(key.annotation) if isinstance(key.annotation, UnionType) else (key.annotation,)
    if NoneType in kinds and (value is None or value in ("", "none", "null")):
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    if key.unit:
        return _quantity(key.unit, value)
    if get_origin(kind) is Literal:
        return _choice(get_args(kind), value)
    if key.is_list:
        return _texts(value)
    if get_origin(kind) is tuple:
        return _mappings(value)
    return {bool: _switch, int: _whole, float: _real, str: _text}[kind](value)


def _quantity(unit: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        example = "64Gi" if unit == "bytes" else "200ms"
        raise ConfigError(
            f"expected a {'size' if unit == 'bytes' else 'duration'} such as {example}"
        )
    return parse_bytes(value) if unit == "bytes" else parse_duration_s(value)


def _choice(choices: tuple[str, ...], value: object) -> str:
    wanted = str(value).lower()
    wanted = wanted if wanted in choices else _SYNONYMS.get(wanted, wanted)
    if wanted not in choices:
        raise ConfigError(f"expected one of {', '.join(choices)}")
    return wanted


def _texts(value: object) -> tuple[str, ...]:
    """A list, or a text with commas between the parts."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError("expected a list of texts, or one text with commas between the parts")
    return tuple(part.strip() for part in parts if part.strip())


def _mappings(value: object) -> tuple[dict[str, object], ...]:
    """A list of mappings, or one; as a text it is YAML, hence also JSON."""
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError("expected a list of mappings, and this is no YAML") from None
    parts = [value] if isinstance(value, dict) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, dict) for part in parts):
        raise ConfigError("expected a list of mappings such as [{kind: pii}]")
    return tuple({str(name): inner for name, inner in part.items()} for part in parts)


def _switch(value: object) -> bool:
    wanted = str(value).lower()
    if isinstance(value, bool | str) and wanted in _TRUE | _FALSE:
        return wanted in _TRUE
    raise ConfigError("expected true or false")


def _whole(value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return int(value)
        except ValueError:
            pass
    raise ConfigError("expected a whole number")


def _real(value: object) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    raise ConfigError("expected a number")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError("expected a text; put it in quotes if it looks like something else")
    return value
