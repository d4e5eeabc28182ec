"""novacron cache warm, pin and unpin: prefixes that a server shall have ready."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from novacron.cli.cache.place import BASE, client_of
from novacron.config.quantities import parse_duration_s

Function = TypeVar("Function", bound=Callable[..., Any])


def _prefix_options(function: Function) -> Function:
    for option in (
        click.argument(
            "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
        ),
        click.option("--prompt", help="The text itself, instead of a FILE."),
        click.option("--model-name", help="Model, or variant, of the server."),
        click.option(
            "--public", is_flag=True, help="For all callers of a server with several keys."
        ),
        click.option("--url", help="Server to talk to. [default: http://127.0.0.1:8080]"),
        click.option("--api-key", "client_key", help="Its key. [default: NOVACRON_API_KEY]"),
    ):
        function = option(function)
    return function


@click.command()
@_prefix_options
def warm(
    file: Path | None,
    prompt: str | None,
    model_name: str | None,
    public: bool,
    url: str | None,
    client_key: str | None,
) -> None:
    """Have a server compute the prefix in FILE now, so that prompts that start with it are quick.

    FILE is text, or *.json with `messages` (and `tools`) as for a chat, or a list of messages.
    """
    body = _body(file, prompt, model_name, public=public)
    with client_of(url, client_key) as client:
        click.echo(_warmed(client.post(f"{BASE}/warm", body)))


@click.command()
@_prefix_options
@click.option("--name", help="To unpin it by. [default: made from the prefix]")
@click.option("--ttl", metavar="DURATION", help="End by itself after so long: 12h, 7d.")
def pin(
    file: Path | None,
    prompt: str | None,
    model_name: str | None,
    public: bool,
    url: str | None,
    client_key: str | None,
    name: str | None,
    ttl: str | None,
) -> None:
    """Compute the prefix in FILE and keep its blocks until it is unpinned.

    FILE is text, or *.json with `messages` (and `tools`) as for a chat, or a list of messages.
    """
    body = _body(file, prompt, model_name, public=public)
    if name is not None:
        body["name"] = name
    if ttl is not None:
        body["ttl"] = parse_duration_s(ttl)
    with client_of(url, client_key) as client:
        result = client.post(f"{BASE}/pin", body)
    click.echo(f"{result['pin']['name']}: {_warmed(result['warmed'])}")


@click.command()
@click.argument("name")
@click.option("--public", is_flag=True, help="One that is everyone's.")
@click.option("--url", help="Server to talk to. [default: http://127.0.0.1:8080]")
@click.option("--api-key", "client_key", help="Its key. [default: NOVACRON_API_KEY]")
def unpin(name: str, public: bool, url: str | None, client_key: str | None) -> None:
    """Let the blocks of a pinned prefix leave like any others."""
    body: dict[str, object] = {"name": name}
    if public:
        body["cache_scope"] = "public"
    with client_of(url, client_key) as client:
        client.post(f"{BASE}/unpin", body)
    click.echo(f"{name} is not pinned any more.")


def _body(
    file: Path | None, prompt: str | None, model_name: str | None, *, public: bool
) -> dict[str, object]:
    if (file is None) == (prompt is None):
        raise click.UsageError("Give a FILE, or --prompt TEXT.")
    body: dict[str, object] = {"prompt": prompt} if file is None else _read(file)
    if model_name is not None:
        body["model"] = model_name
    if public:
        body["cache_scope"] = "public"
    return body


def _read(file: Path) -> dict[str, object]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} cannot be read as text: {error}.") from error
    if file.suffix != ".json":
        return {"prompt": text}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{file} is not valid JSON: {error}.") from error
    if isinstance(content, list):
        return {"messages": content}
    if not isinstance(content, dict) or "messages" not in content:
        raise click.UsageError(
            f"{file} is neither a list of messages nor an object with `messages`; "
            "text is sent from a file with another ending."
        )
    return {name: content[name] for name in ("messages", "tools") if name in content}


def _warmed(result: dict[str, Any]) -> str:
    return (
        f"{result['num_tokens']} tokens, {result['computed_tokens']} computed in "
        f"{result['seconds']:.2f} s, {result['cached_tokens']} were cached."
    )
