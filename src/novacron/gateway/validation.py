"""What pydantic finds wrong with a body, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PLACES = ("body", "query", "path", "header")


def describe_validation(problems: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """What is wrong with a body, and the path of the first field at fault.

    A union (text or list of texts) has a problem for each of its forms. The one that got furthest
    into the field is told, since that form is likely meant.
    """
    by_field: dict[str, str] = {}
    for problem in problems:
        by_field.setdefault(_field(problem["loc"]), str(problem["msg"]))
    if "" in by_field:
        return "A JSON object is expected as body, with content-type application/json.", None
    told = [field for field in by_field if not any(o.startswith(f"{field}.") for o in by_field)]
    sentences = (f"{field}: {by_field[field]}" for field in told)
    return "; ".join(sentences) + ".", told[0]


def _field(location: Sequence[str | int]) -> str:
    """`("body", "messages", 0, "role")` as `messages.0.role`; names of union members left out."""
    parts = location[1:] if location and location[0] in _PLACES else location
    return ".".join(str(part) for part in parts if not _is_union_member(str(part)))


def _is_union_member(part: str) -> bool:
    return "[" in part or part in ("str", "int", "float", "bool")
