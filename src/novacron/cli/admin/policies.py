"""novacron admin policy."""

from __future__ import annotations

from typing import Literal

import click
import msgspec

from novacron.accounts.data_policy import DataPolicy
from novacron.accounts.database.store import Store
from novacron.cli.admin.output import json_option
from novacron.cli.admin.place import on_accounts
from novacron.config.tenants import KINDS

_CHOICES = ("off", "exact", "semantic")


@click.group()
def policy() -> None:
    """What may become of tenants' data: docs/privacy.md. Those that a server's settings name have
    the policies of the settings."""


@policy.command("set")
@click.argument("tenant")
@click.option("--record-prompts", is_flag=True, help="Keep prompts and answers, encrypted.")
@click.option(
    "--retain",
    "retain",
    metavar="KIND=TIME",
    multiple=True,
    help=f"How long {', '.join(KINDS)} are kept, as prompts=7d. Can be repeated.",
)
@click.option("--region", "regions", multiple=True, help="Where its data may be; repeatable.")
@click.option(
    "--response-cache",
    type=click.Choice(_CHOICES),
    default="exact",
    show_default=True,
    help="The most that it takes part in.",
)
@on_accounts
def set_(
    store: Store,
    tenant: str,
    *,
    record_prompts: bool,
    retain: tuple[str, ...],
    regions: tuple[str, ...],
    response_cache: Literal["off", "exact", "semantic"],
) -> None:
    """Set the policy of TENANT. What is left out is as if nothing was said of it."""
    kept = {}
    for given in retain:
        kind, is_there, duration = given.partition("=")
        if not is_there:
            raise click.UsageError(f"--retain is '{given}': give KIND=TIME, such as prompts=7d.")
        kept[kind] = duration
    made = DataPolicy(
        record_prompts=record_prompts, retain=kept, regions=regions, response_cache=response_cache
    )
    click.echo(f"{tenant}: {_in_words(store.policies.set(tenant, made))}")


@policy.command()
@json_option
@on_accounts
def ls(store: Store, *, as_json: bool) -> None:
    """List policies."""
    found = store.policies.list()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    for tenant, one in found.items():
        click.echo(f"{tenant}: {_in_words(one)}")
    if not found:
        click.echo("None.")


@policy.command()
@click.argument("tenant")
@on_accounts
def rm(store: Store, tenant: str) -> None:
    """Remove the policy of TENANT, which then has that of all others."""
    store.policies.remove(tenant)
    click.echo(f"Removed the policy of the tenant {tenant}.")


def _in_words(policy: DataPolicy) -> str:
    said = [f"response_cache={policy.response_cache}"]
    if policy.record_prompts:
        said.append("record_prompts")
    if policy.regions:
        said.append(f"regions={'|'.join(policy.regions)}")
    said += [f"retain {kind}={time}" for kind, time in policy.retain.items()]
    return ", ".join(said)
