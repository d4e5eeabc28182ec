"""Options that the commands about traces share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from novacron.cache_simulator.replay import Costs
from novacron.cache_simulator.trace import Trace, read_trace
from novacron.config.quantities import parse_bytes
from novacron.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])


class Size(click.ParamType[Any, Any]):
    """4Gi, as in the settings."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return parse_bytes(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


SIZE = Size()


def trace_options(function: Function) -> Function:
    """Which trace, and what a token costs: `trace_file`, `limit`, and the fields of Costs."""
    decorators = (
        click.option(
            "--trace", "trace_file", required=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File of requests: of novacron cache trace, or of Mooncake.",
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Most requests to read."),
        click.option(
            "--bytes-per-token", type=SIZE, default="128Ki", show_default=True,
            help="KV of a token: see novacron quantize --explain. A model of 8 B takes 128Ki.",
        ),
        click.option(
            "--prefill-tokens-per-s", default=5000.0, show_default=True,
            help="Tokens of a prompt that are computed in a second.",
        ),
    )  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def read(trace_file: Path, limit: int | None) -> Trace:
    return read_trace(trace_file, limit)


def costs_of(bytes_per_token: int, prefill_tokens_per_s: float) -> Costs:
    return Costs(bytes_per_token=bytes_per_token, prefill_tokens_per_s=prefill_tokens_per_s)
