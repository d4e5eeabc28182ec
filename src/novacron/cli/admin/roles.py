"""novacron admin role."""

from __future__ import annotations

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option, show
from novacron.cli.admin.place import on_accounts
from novacron.gateway.identity.permissions import check_patterns, check_role


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
    check_role(name, permissions)
    store.roles.create(name, permissions=permissions, description=description)
    click.echo(f"Added the role {name}.")


@role.command("set")
@click.argument("name")
@click.argument("permissions", nargs=-1, required=True)
@click.option("--description", help="[default: as it is]")
@on_accounts
def set_(store: Store, name: str, permissions: tuple[str, ...], description: str | None) -> None:
    """Have the role NAME allow PERMISSIONS, and no others, to whoever has it."""
    check_patterns(permissions, "permissions")
    told = {} if description is None else {"description": description}
    store.roles.change(name, permissions=permissions, **told)
    click.echo(f"The role {name} allows {', '.join(permissions)}.")


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
