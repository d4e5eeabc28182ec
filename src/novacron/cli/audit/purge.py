"""novacron audit purge."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.audit.purge import purge as purge_log
from novacron.cli.audit.place import Moment, on_audit_log


@click.command()
@click.option("--tenant", required=True, help="Whose records; '' for those of no tenant.")
@click.option("--before", type=Moment(), required=True, help="Older than this: 2026-08-01.")
@on_audit_log
def purge(folder: Path, tenant: str, before: float) -> None:
    """Take out records of a tenant for good. The log stays whole: hashes take their place, and a
    record tells of the purge.

    Nothing of a record can be found out from its hash. Works beside servers; their newest file is
    left, and closed off after a day at the latest.
    """
    done = purge_log(folder, tenant, before)
    click.echo(f"Purged {done.num_purged} records.")
    if done.num_left:
        click.echo(
            f"{done.num_left} are in files that servers write at the moment: purge again once "
            "these are closed off, after a day at the latest.",
            err=True,
        )
