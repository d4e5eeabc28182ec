"""novacron cache: commands about cached KV blocks, each in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping

import click

from novacron.cli.lazy_group import Entry, LazyGroup

_COMMANDS: Mapping[str, Entry] = {
    "ls": Entry("novacron.cli.cache.ls:ls", "List models on disk, or a server's pins."),
    "stat": Entry("novacron.cli.cache.stat:stat", "How full it is, and what it was good for."),
    "verify": Entry("novacron.cli.cache.verify:verify", "Check what is on disk."),
    "clear": Entry("novacron.cli.cache.clear:clear", "Drop blocks."),
    "answers": Entry("novacron.cli.cache.answers:answers", "Kept answers of a server, or none."),
    "warm": Entry("novacron.cli.cache.prefixes:warm", "Compute a prefix ahead of its use."),
    "pin": Entry("novacron.cli.cache.prefixes:pin", "Keep a prefix."),
    "trace": Entry("novacron.cli.cache_trace:trace", "Make up a trace of requests."),
    "simulate": Entry("novacron.cli.cache_simulate:simulate", "Try settings on a trace."),
    "tune": Entry("novacron.cli.cache_tune:tune", "Find better settings for a trace."),
    "unpin": Entry("novacron.cli.cache.prefixes:unpin", "Let a pinned prefix leave."),
}


class _CacheGroup(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_CacheGroup)
def cache() -> None:
    """Look into cached KV blocks, keep, compute and drop them.

    ls, stat and clear look at the folder of blocks on disk, for which no server is needed; with
    --url they ask a running server.
    """
