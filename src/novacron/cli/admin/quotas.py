"""novacron admin quota."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from novacron.accounts.database.store import Store
from novacron.accounts.quota import NUMBERS, PRIORITIES, SUBJECT_KINDS, Quota, SubjectKind
from novacron.cli.admin.output import json_option
from novacron.cli.admin.place import on_accounts

_kind = click.argument("kind", type=click.Choice(SUBJECT_KINDS))
_id = click.argument("id")


@click.group()
def quota() -> None:
    """What a tenant, a user and a key may use. All three count for a call."""


def _limits(command: Any) -> Any:
    for name in reversed(NUMBERS):
        flag = "--" + name.replace("_", "-")
        command = click.option(flag, type=click.IntRange(0), metavar="N")(command)
    lists = (("--model", "models", "A model that may be used."),
             ("--variant", "variants", "A precision that may be used."))  # fmt: skip
    for flag, name, help in lists:
        command = click.option(flag, name, multiple=True, help=f"{help} Can be repeated.")(command)
    return click.option("--priority", type=click.Choice(PRIORITIES))(command)


@quota.command("set")
@_kind
@_id
@_limits
@on_accounts
def set_(store: Store, kind: SubjectKind, id: str, **limits: Any) -> None:
    """Set the quota of the KIND (tenant, user, key) ID. What is left out has no limit; without
    any, there is no quota."""
    store.quotas.set(kind, id, Quota(**limits))
    click.echo(f"{kind}:{id}: {_in_words(store.quotas.get(kind, id))}")


@quota.command()
@json_option
@on_accounts
def ls(store: Store, *, as_json: bool) -> None:
    """List quotas."""
    quotas = store.quotas.list()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(quotas)).decode())
        return
    for subject, limits in quotas.items():
        click.echo(f"{subject}: {_in_words(limits)}")
    if not quotas:
        click.echo("None.")


def _in_words(quota: Quota) -> str:
    limits = msgspec.structs.asdict(quota).items()
    said = [f"{name}={_text(value)}" for name, value in limits if value not in (None, ())]
    return ", ".join(said) or "no limits"


def _text(value: object) -> str:
    return "|".join(value) if isinstance(value, tuple) else str(value)
