"""novacron admin tenant."""

from __future__ import annotations

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option, show
from novacron.cli.admin.place import on_accounts
from novacron.cli.admin.standing import add_standing


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


add_standing(tenant, "tenant", lambda store: store.tenants, needs_no="users and keys")
