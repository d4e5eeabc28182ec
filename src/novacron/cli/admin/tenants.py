"""novacron admin tenant."""

from __future__ import annotations

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option, show
from novacron.cli.admin.place import on_accounts


@click.group()
def tenant() -> None:
    """Organisations, whose users share limits and caches, and nothing with others."""


@tenant.command()
@click.argument("id")
@click.option("--name", default="", help="What people call it.")
@on_accounts
def add(store: Store, id: str, name: str) -> None:
    """Add the tenant ID."""
    store.tenants.create(id, name=name)
    click.echo(f"Added the tenant {id}.")


@tenant.command()
@json_option
@on_accounts
def ls(store: Store, *, as_json: bool) -> None:
    """List tenants."""
    show(store.tenants.list(), ("id", "name", "disabled", "created_at"), as_json=as_json)


@tenant.command()
@click.argument("id")
@on_accounts
def disable(store: Store, id: str) -> None:
    """Let nobody of the tenant ID in any more."""
    store.tenants.change(id, disabled=True)
    click.echo(f"The tenant {id} is disabled.")


@tenant.command()
@click.argument("id")
@on_accounts
def enable(store: Store, id: str) -> None:
    """Let the tenant ID in again."""
    store.tenants.change(id, disabled=False)
    click.echo(f"The tenant {id} is enabled.")


@tenant.command()
@click.argument("id")
@on_accounts
def rm(store: Store, id: str) -> None:
    """Remove the tenant ID, which has neither users nor keys."""
    store.tenants.remove(id)
    click.echo(f"Removed the tenant {id}.")
