"""novacron admin backup, restore and verify."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.place import on_accounts

_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command()
@_file
@on_accounts
def backup(store: Store, file: Path) -> None:
    """Write all accounts, quotas, usage and the ledger to FILE, while servers go on."""
    num_rows = store.backup(file)
    click.echo(f"Wrote {num_rows} rows to {file}. It holds hashes of keys: keep it safe.")


@click.command()
@_file
@on_accounts
def restore(store: Store, file: Path) -> None:
    """Fill an empty database, of either kind, from FILE: with all of it or nothing."""
    num_rows = store.restore(file)
    click.echo(f"Restored {num_rows} rows from {file}.")


@click.command()
@on_accounts
def verify(store: Store) -> None:
    """Check that every balance is the sum of its entries in the ledger. Exit code 1 if not."""
    differences = store.verify()
    for difference in differences:
        click.echo(difference)
    if differences:
        sys.exit(1)
    click.echo("The ledger has no differences.")
