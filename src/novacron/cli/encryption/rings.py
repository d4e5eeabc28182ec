"""novacron encryption status and rotate: data keys, wherever the settings have some."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from novacron.cli.main import EXIT_FAILED
from novacron.cli.options import load_settings
from novacron.cli.sealing import all_places, ring_of
from novacron.errors import ConfigError

if TYPE_CHECKING:
    from novacron.encryption.key_ring import KeyRing

_FLAGS = ("encryption_key", "cache_dir", "state_dir", "kv_disk_path", "kv_redis_url",
          "kv_object_url", "response_cache_url")  # fmt: skip


def _as_the_server_has_them(function: Callable[..., Any]) -> Callable[..., Any]:
    for name in _FLAGS:
        flag = "--" + name.replace("_", "-")
        function = click.option(flag, name, help="As the server's setting.")(function)
    config = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--config", "config_file", type=config, help="The server's YAML file.")(
        function
    )


@click.command()
@_as_the_server_has_them
def status(config_file: Path | None, **flags: object) -> None:
    """List the data keys of each place, what they are wrapped with, and whether the master key that
    is configured opens them."""
    for place, ring in _rings(config_file, flags):
        rows = _asked(place, ring.status)
        click.echo(f"{place}: {len(rows)} data keys")
        for id, one, is_known in rows:
            day = time.strftime("%Y-%m-%d", time.gmtime(one.created_ms / 1000))
            opened = "" if is_known else ", which is not known: what it encrypts cannot be read"
            click.echo(f"  {id} of {day}, wrapped with {one.master}{opened}")


@click.command()
@_as_the_server_has_them
@click.pass_context
def rotate(ctx: click.Context, /, config_file: Path | None, **flags: object) -> None:
    """Wrap all data keys with the current master key, and begin new ones for what comes.

    Put the new master key before the old one (a file or variable may hold several; in Vault write a
    new version), call this, then take the old one away. What is encrypted stays as it is, and can
    be read all the time; running servers need no restart, if their key comes from a file or Vault.

    Exit code 1: data keys are left that no known master key opens.
    """
    num_left = 0
    for place, ring in _rings(config_file, flags):
        done = _asked(place, ring.rotate)
        num_left += done.num_left
        left = f"; {done.num_left} cannot be opened, and are left" if done.num_left else ""
        click.echo(f"{place}: {done.num_wrapped_anew} data keys wrapped anew{left}")
    if num_left:
        ctx.exit(EXIT_FAILED)


def _rings(file: Path | None, flags: dict[str, object]) -> Iterator[tuple[str, KeyRing]]:
    settings = load_settings(flags, file=file)
    source = settings.engine.cache.encryption_key
    if not source:
        raise ConfigError(
            "encryption_key is not set: nothing is encrypted. Give the server's settings, with "
            "--config or as flags."
        )
    for place in all_places(settings):
        yield place.shown, ring_of(place, source)


def _asked(place: str, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except OSError as error:
        raise ConfigError(f"{place} cannot be asked: {error}.") from None
