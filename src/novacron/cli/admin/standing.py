"""What tenants and users have in common: they are renamed, shut out, let in again, and removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from novacron.accounts.administration import Records
from novacron.accounts.database.store import Store
from novacron.cli.admin.place import on_accounts


def add_standing(
    group: click.Group, what: str, records: Callable[[Store], Records[Any]], *, needs_no: str
) -> None:
    """Commands of `group` about one of `records`, which people call `what`. It can be removed once
    it has `needs_no`."""

    @group.command(help=f"Call the {what} ID by another NAME. The ID stays.")
    @click.argument("id")
    @click.argument("name")
    @on_accounts
    def rename(store: Store, id: str, name: str) -> None:
        records(store).change(id, name=name)
        click.echo(f"The {what} {id} is called {name}.")

    @group.command(help=f"Let the {what} ID in no more.")
    @click.argument("id")
    @on_accounts
    def disable(store: Store, id: str) -> None:
        records(store).change(id, disabled=True)
        click.echo(f"The {what} {id} is disabled.")

    @group.command(help=f"Let the {what} ID in again.")
    @click.argument("id")
    @on_accounts
    def enable(store: Store, id: str) -> None:
        records(store).change(id, disabled=False)
        click.echo(f"The {what} {id} is enabled.")

    @group.command(help=f"Remove the {what} ID, which has no {needs_no}.")
    @click.argument("id")
    @on_accounts
    def rm(store: Store, id: str) -> None:
        records(store).remove(id)
        click.echo(f"Removed the {what} {id}.")
