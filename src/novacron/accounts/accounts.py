"""Accounts: all that a server has of them, as the gateway sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novacron.accounts.administration import Administration
from novacron.accounts.key_directory import AccountKeys
from novacron.accounts.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The ledger that calls are posted to, what administers the rest, and where those who
    authenticate find keys. `hash_key` makes of a key what is kept of it."""

    ledger: Ledger
    administration: Administration
    directory: AccountKeys
    hash_key: Callable[[str], str]
