"""Accounts: all that a server has of them, as the gateway sees it.

The classes behind these protocols are those of database/; the gateway never imports it, so that a
server without accounts does not load a database library.
"""

from __future__ import annotations

from dataclasses import dataclass

from novacron.accounts.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The ledger that calls are posted to."""

    ledger: Ledger
