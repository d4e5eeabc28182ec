"""Accounts of a server that has a database. Nothing of a database is imported for others."""

from __future__ import annotations

from uuid import uuid4

from novacron.accounts.accounts import Accounts
from novacron.accounts.data_policy import StoredPolicies
from novacron.accounts.key_directory import AccountKeys
from novacron.accounts.ledger import Ledger
from novacron.config.folders import database_url, has_database
from novacron.config.load import Settings
from novacron.config.server import ServerConfig
from novacron.config.tenants import TenantPolicies


def open_accounts(server: ServerConfig) -> Accounts | None:
    """None, where no database was named and none is there. Raises ConfigError and
    DatabaseUnavailable."""
    if not has_database(server):
        return None

    from novacron.accounts.book_process import BookProcess
    from novacron.accounts.database.store import Store
    from novacron.gateway.identity.key_hash import hash_key

    url, coordinator = database_url(server), uuid4().hex
    store = Store(url)
    return Accounts(
        ledger=Ledger(BookProcess(url, coordinator)),
        administration=store,
        directory=AccountKeys(store),
        policies=StoredPolicies(store.policies),
        hash_key=hash_key,
        coordinator=coordinator,
        shared=store.shared_state(),
        data_keys=store.data_keys(),
        sweep=store.book(coordinator).sweep,
    )


def policies_of(settings: Settings, accounts: Accounts | None) -> TenantPolicies:
    """Those of the settings, and behind them those of the database, which may change."""
    in_settings = settings.tenants.policies
    if accounts is None:
        return in_settings
    return TenantPolicies(in_settings.by_name, accounts.policies)
