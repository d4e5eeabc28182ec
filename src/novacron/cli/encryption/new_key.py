"""novacron encryption new-key."""

from __future__ import annotations

import click

from novacron.encryption.master_keys import new_master_key


@click.command("new-key")
def new_key() -> None:
    """Print a new master key. Whoever has it can read all that is encrypted with it; without it,
    nobody can."""
    click.echo(new_master_key())
