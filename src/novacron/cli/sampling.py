"""Options for how to sample, shared by the commands that generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from novacron.errors import InvalidRequest

Function = TypeVar("Function", bound=Callable[..., Any])

KINDS: Mapping[str, type[int] | type[float]] = {
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "seed": int,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
}

_MEANINGS = {
    "max_tokens": "most tokens to generate",
    "temperature": "0: always the likeliest token; higher: more varied",
    "top_p": "sample from the likeliest tokens that have this share together",
    "top_k": "sample from so many likeliest tokens; 0: off",
    "seed": "makes the answer repeatable",
}


def sampling_options(function: Function) -> Function:
    """--temperature and the other usual ones; --stop may be repeated."""
    stop = click.option("--stop", multiple=True, help="end before this text; may be repeated")
    function = stop(function)
    for name, meaning in reversed(_MEANINGS.items()):
        option = click.option(f"--{name.replace('_', '-')}", name, type=KINDS[name], help=meaning)
        function = option(function)
    return function


def split_sampling(options: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """(sampling fields of the API that were given, the remaining options)."""
    given = {name: options[name] for name in _MEANINGS if options.get(name) is not None}
    others = {name: value for name, value in options.items() if name not in _MEANINGS}
    stop = others.pop("stop", None)
    if isinstance(stop, tuple) and stop:
        given["stop"] = list(stop)
    return given, others


def parse_setting(name: str, text: str) -> object:
    """The value of a sampling field as typed in a chat. Raises InvalidRequest."""
    name = name.replace("-", "_")
    if name == "stop":
        return text
    if name not in KINDS:
        raise InvalidRequest(f"There is no setting '{name}'. Known: {', '.join((*KINDS, 'stop'))}.")
    try:
        return KINDS[name](text)
    except ValueError as error:
        kind = "a whole number" if KINDS[name] is int else "a number"
        raise InvalidRequest(f"{name} must be {kind}, not '{text}'.") from error
