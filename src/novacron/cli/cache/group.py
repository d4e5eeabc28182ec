"""novacron cache: commands about cached KV blocks, each in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click


class _Entry(NamedTuple):
    target: str  # module:attribute
    help: str


_COMMANDS: Mapping[str, _Entry] = {
    "ls": _Entry("novacron.cli.cache.ls:ls", "List models on disk, or a server's pins."),
    "stat": _Entry("novacron.cli.cache.stat:stat", "How full it is, and what it was good for."),
    "verify": _Entry("novacron.cli.cache.verify:verify", "Check what is on disk."),
    "clear": _Entry("novacron.cli.cache.clear:clear", "Drop blocks."),
    "warm": _Entry("novacron.cli.cache.prefixes:warm", "Compute a prefix ahead of its use."),
    "pin": _Entry("novacron.cli.cache.prefixes:pin", "Keep a prefix."),
    "trace": _Entry("novacron.cli.cache_trace:trace", "Make up a trace of requests."),
    "simulate": _Entry("novacron.cli.cache_simulate:simulate", "Try settings on a trace."),
    "tune": _Entry("novacron.cli.cache_tune:tune", "Find better settings for a trace."),
    "unpin": _Entry("novacron.cli.cache.prefixes:unpin", "Let a pinned prefix leave."),
}


class _CacheGroup(click.Group):
    """Imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])


@click.group(cls=_CacheGroup)
def cache() -> None:
    """Look into cached KV blocks, keep, compute and drop them.

    ls, stat and clear look at the folder of blocks on disk, for which no server is needed; with
    --url they ask a running server.
    """
