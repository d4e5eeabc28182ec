"""Accounts: all that a server has of them, as the gateway sees it."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.accounts.administration import Administration
from novacron.accounts.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The ledger that calls are posted to, and what administers the rest."""

    ledger: Ledger
    administration: Administration
