"""novacron admin user."""

from __future__ import annotations

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option, show
from novacron.cli.admin.place import on_accounts
from novacron.cli.admin.standing import add_standing

_COLUMNS = ("id", "tenant_id", "name", "email", "roles", "disabled", "created_at")


@click.group()
def user() -> None:
    """People and services; each belongs to one tenant."""


@user.command()
@click.argument("id")
@click.option("--tenant", required=True, help="Whose user it is.")
@click.option("--name", default="", help="What people call it.")
@click.option("--email", default="")
@click.option("--role", "roles", multiple=True, help="A role; can be repeated.  [default: user]")
@on_accounts
def add(store: Store, id: str, tenant: str, name: str, email: str, roles: tuple[str, ...]) -> None:
    """Add the user ID."""
    store.users.create(id, tenant_id=tenant, name=name, email=email, roles=roles or ("user",))
    click.echo(f"Added the user {id} of the tenant {tenant}.")


@user.command()
@click.option("--tenant", help="Only its users.")
@json_option
@on_accounts
def ls(store: Store, tenant: str | None, *, as_json: bool) -> None:
    """List users."""
    show(store.users.list(tenant_id=tenant), _COLUMNS, as_json=as_json)


@user.command("set-roles")
@click.argument("id")
@click.argument("roles", nargs=-1)
@on_accounts
def set_roles(store: Store, id: str, roles: tuple[str, ...]) -> None:
    """Give the user ID these ROLES, and no others."""
    store.users.change(id, roles=roles)
    click.echo(f"The user {id} has the roles: {', '.join(roles) or 'none'}.")


@user.command("set-email")
@click.argument("id")
@click.argument("email")
@on_accounts
def set_email(store: Store, id: str, email: str) -> None:
    """Write to the user ID at EMAIL from now on."""
    store.users.change(id, email=email)
    click.echo(f"The user {id} has the address {email}.")


add_standing(user, "user", lambda store: store.users, needs_no="keys")
