"""novacron admin role."""

from __future__ import annotations

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option, show
from novacron.cli.admin.place import on_accounts


@click.group()
def role() -> None:
    """Sets of permissions with names, beside the built-in ones."""


@role.command()
@click.argument("name")
@click.argument("permissions", nargs=-1, required=True)
@click.option("--description", default="")
@on_accounts
def add(store: Store, name: str, permissions: tuple[str, ...], description: str) -> None:
    """Add the role NAME, which allows PERMISSIONS (llm:inference:*, llm:metrics:read)."""
    store.roles.create(name, permissions=permissions, description=description)
    click.echo(f"Added the role {name}.")


@role.command()
@json_option
@on_accounts
def ls(store: Store, *, as_json: bool) -> None:
    """List roles that are not built in."""
    show(store.roles.list(), ("name", "permissions", "description"), as_json=as_json)


@role.command()
@click.argument("name")
@on_accounts
def rm(store: Store, name: str) -> None:
    """Remove the role NAME. Who has it loses what it allowed."""
    store.roles.remove(name)
    click.echo(f"Removed the role {name}.")
