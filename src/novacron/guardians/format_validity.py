"""Answers that have to be in a form: JSON with certain fields, or of a length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from novacron.guardians.guardian import Duty, LocalGuardian
from novacron.guardians.records import Subject, Verdict

_FENCED: Final = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@dataclass(frozen=True, kw_only=True)
class FormatRules:
    """`fields`: what a JSON object must have, by JSON's names of types. `most_characters`: 0, any
    number. Longer rules are for structured output, which cannot be violated in the first place."""

    is_json: bool = False
    fields: Mapping[str, str] | None = None
    most_characters: int = 0

    @staticmethod
    def type_names() -> tuple[str, ...]:
        return tuple(_TYPES)


class FormatValidity(LocalGuardian):
    def __init__(self, duty: Duty, rules: FormatRules) -> None:
        super().__init__(duty)
        self._rules = rules

    @property
    def version(self) -> str:
        return f"1:{self._rules!r}"

    def check(self, subject: Subject) -> Verdict:
        rules = self._rules
        if rules.most_characters and len(subject.text) > rules.most_characters:
            return self._found("too_long")
        if not subject.is_whole or not (rules.is_json or rules.fields):
            return self._passed()
        fault = _fault(subject.text, rules.fields or {})
        return self._found(fault) if fault else self._passed()


def _fault(text: str, fields: Mapping[str, str]) -> str:
    fenced = _FENCED.fullmatch(text)
    try:
        value = msgspec.json.decode(fenced[1] if fenced else text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "not_json"
    if not fields:
        return ""
    if not isinstance(value, dict):
        return "not_an_object"
    for name, kind in fields.items():
        if name not in value:
            return "field_missing"
        is_bool = isinstance(value[name], bool)
        if not isinstance(value[name], _TYPES[kind]) or (is_bool and kind != "boolean"):
            return "field_of_wrong_type"
    return ""
