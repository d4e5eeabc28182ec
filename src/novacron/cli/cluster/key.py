"""novacron cluster key: this host's public key, made where there is none yet."""

from __future__ import annotations

import click

from novacron.cli.link_key import link_key_file
from novacron.engine.link.keys import read_or_make_key


@click.command()
@click.option("--link-key", "file", default="", help="Key file. [default: that of novacron serve]")
def key(file: str) -> None:
    """Print the public key of this host, as `novacron engine --allow` on other hosts takes it.

    Its secret half is made where there is none, and never leaves the file.
    """
    click.echo(read_or_make_key(link_key_file(file)).public)
