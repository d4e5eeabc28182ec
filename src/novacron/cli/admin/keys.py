"""novacron admin key."""

from __future__ import annotations

import time
from typing import Final

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option, show
from novacron.cli.admin.place import on_accounts
from novacron.gateway.identity.key_format import NewKey, new_key
from novacron.gateway.identity.key_hash import hash_key
from novacron.gateway.identity.permissions import check_patterns
from novacron.gateway.native.admin_schema import key_info

_COLUMNS: Final = (
    "id", "prefix", "tenant_id", "user_id", "name", "roles", "scopes",
    "created_at", "expires_at", "revoked_at", "last_used_at",
)  # fmt: skip
_DAY_S: Final = 86_400
_HOUR_S: Final = 3600


@click.group()
def key() -> None:
    """API keys. Only hashes of them are kept."""


@key.command()
@click.option("--tenant", help="Whose key it is.  [default: that of the user]")
@click.option("--user", help="The user whose roles it has.")
@click.option("--name", default="", help="What people call it.")
@click.option("--role", "roles", multiple=True, help="A role, in place of the user's; repeatable.")
@click.option("--scope", "scopes", multiple=True, help="Narrows what it may do; repeatable.")
@click.option("--days", type=click.IntRange(1), help="Valid for so long.  [default: for ever]")
@on_accounts
def add(
    store: Store,
    tenant: str | None,
    user: str | None,
    name: str,
    roles: tuple[str, ...],
    scopes: tuple[str, ...],
    days: int | None,
) -> None:
    """Make a key, and show it: once."""
    if tenant is None:
        if user is None:
            raise click.UsageError("Name a --user or a --tenant.")
        tenant = store.users.get(user).tenant_id
    check_patterns(scopes, "scopes")
    new = new_key()
    made = store.keys.create(
        prefix=new.prefix,
        hash=hash_key(new.text),
        tenant_id=tenant,
        user_id=user,
        name=name,
        roles=roles or (() if user else ("user",)),
        scopes=scopes,
        expires_at=None if days is None else int(time.time()) + days * _DAY_S,
    )
    _tell(made.id, new)


@key.command()
@click.option("--tenant", help="Only its keys.")
@click.option("--user", help="Only his keys.")
@json_option
@on_accounts
def ls(store: Store, tenant: str | None, user: str | None, *, as_json: bool) -> None:
    """List keys. Never the keys themselves."""
    found = store.keys.list(tenant_id=tenant, user_id=user)
    show([key_info(one) for one in found], _COLUMNS, as_json=as_json)


@key.command()
@click.argument("id")
@click.option("--overlap-hours", type=click.FloatRange(0), default=24.0, show_default=True,
              help="The old key is valid for so long beside the new one.")  # fmt: skip
@on_accounts
def rotate(store: Store, id: str, overlap_hours: float) -> None:
    """Make a key in place of ID, with the same rights."""
    new = new_key()
    until = int(time.time() + overlap_hours * _HOUR_S)
    made = store.keys.replace(id, prefix=new.prefix, hash=hash_key(new.text), overlap_until=until)
    _tell(made.id, new)


@key.command()
@click.argument("id")
@on_accounts
def revoke(store: Store, id: str) -> None:
    """Revoke the key ID, for good. Servers notice within seconds."""
    store.keys.revoke(id)
    click.echo(f"Revoked the key {id}.")


def _tell(id: str, new: NewKey) -> None:
    """The key alone on standard output, for scripts."""
    click.echo(f"Made the key {id}. It is not shown again:", err=True)
    click.echo(new.text)
