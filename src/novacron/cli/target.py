"""Which server a command talks to: one that runs, or one of its own (--model)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from novacron.cli.api_client import DEFAULT_URL, ApiClient
from novacron.cli.background_server import Endpoint, background_server
from novacron.cli.options import load_settings
from novacron.config.load import load

Function = TypeVar("Function", bound=Callable[..., Any])


def target_options(function: Function) -> Function:
    """--url and --api-key; the command must have the settings of "model" too."""
    url = click.option("--url", help=f"Server to talk to. [default: {DEFAULT_URL}]")
    key = click.option(
        "--api-key", "client_key", help="Key for the server. [default: NOVACRON_API_KEY]"
    )
    return url(key(function))


@contextmanager
def target(url: str | None, api_key: str | None, flags: dict[str, object]) -> Iterator[Endpoint]:
    """The server the options name; started and ended here if they name a model."""
    if flags.get("model") is not None:
        if url is not None:
            raise click.UsageError("--url and --model exclude each other.")
        with background_server(load_settings(flags)) as endpoint:
            yield endpoint
        return
    if given := sorted(name for name, value in flags.items() if value not in (None, ())):
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} needs --model: a running server has its own settings."
        )
    yield Endpoint(url or DEFAULT_URL, api_key or configured_key())


@contextmanager
def connected(
    url: str | None, api_key: str | None, flags: dict[str, object]
) -> Iterator[ApiClient]:
    """A client of that server."""
    with (
        target(url, api_key, flags) as endpoint,
        ApiClient(endpoint.url, endpoint.api_key) as client,
    ):
        yield client


def configured_key() -> str | None:
    """The key that a server started in this environment would want."""
    keys = load(file=None, env=os.environ, flags={}).server.api_key
    return keys[0] if keys else None
