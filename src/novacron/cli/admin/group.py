"""novacron admin: commands on the database of accounts, whether a server runs or not."""

from __future__ import annotations

from collections.abc import Mapping

import click

from novacron.cli.lazy_group import Entry, LazyGroup

_COMMANDS: Mapping[str, Entry] = {
    "tenant": Entry("novacron.cli.admin.tenants:tenant", "Organisations that share nothing."),
    "user": Entry("novacron.cli.admin.users:user", "People and services of tenants."),
    "role": Entry("novacron.cli.admin.roles:role", "Sets of permissions with names."),
    "key": Entry("novacron.cli.admin.keys:key", "API keys."),
    "quota": Entry("novacron.cli.admin.quotas:quota", "What tenants, users and keys may use."),
    "price": Entry("novacron.cli.admin.prices:price", "What tokens of models cost."),
    "policy": Entry("novacron.cli.admin.policies:policy", "What may become of tenants' data."),
    "usage": Entry("novacron.cli.admin.usage:usage", "What was used, and its cost."),
    "verify": Entry("novacron.cli.admin.files:verify", "Does the ledger agree with itself?"),
    "backup": Entry("novacron.cli.admin.files:backup", "All of it to one file."),
    "restore": Entry("novacron.cli.admin.files:restore", "A backup into an empty database."),
}


class _AdminGroup(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_AdminGroup)
def admin() -> None:
    """Administer tenants, users, keys, roles, quotas, policies and usage.

    The first command makes the database: accounts.db in the state folder, unless --database or
    NOVACRON_DATABASE names another. Servers that run see each change at their next request.
    """
