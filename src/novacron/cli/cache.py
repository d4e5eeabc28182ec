"""novacron cache: what becomes of KV blocks below the device."""

from __future__ import annotations

import click

from novacron.cli.cache_simulate import simulate
from novacron.cli.cache_trace import trace
from novacron.cli.cache_tune import tune


@click.group()
def cache() -> None:
    """Try settings of the KV cache on traces of requests."""


for _command in (trace, simulate, tune):
    cache.add_command(_command)
