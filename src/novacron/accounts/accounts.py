"""Accounts: all that a server has of them, as the gateway sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novacron.accounts.administration import Administration
from novacron.accounts.data_policy import StoredPolicies
from novacron.accounts.key_directory import AccountKeys
from novacron.accounts.ledger import Ledger
from novacron.coordination.lease import Fence
from novacron.coordination.shared_state import SharedState
from novacron.encryption.key_places import KeyPlace


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The ledger that calls are posted to, what administers the rest, and where those who
    authenticate find keys. `policies` are those of tenants' data, as they were lately. `hash_key`
    makes of a key what is kept of it. `coordinator` is this process among others with the same
    database; `shared` is what they share, `data_keys` are those of what they keep encrypted, and
    `sweep` is what one of them does for the ledger of all, under a lease."""

    ledger: Ledger
    administration: Administration
    directory: AccountKeys
    policies: StoredPolicies
    hash_key: Callable[[str], str]
    coordinator: str = ""
    shared: SharedState | None = None
    data_keys: KeyPlace | None = None
    sweep: Callable[[Fence], int] | None = None
