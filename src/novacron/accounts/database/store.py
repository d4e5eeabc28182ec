"""All that a database of accounts offers, opened together."""

from __future__ import annotations

from pathlib import Path

from novacron.accounts.database import audit, backup, usage_rows
from novacron.accounts.database.data_keys import DatabasePlace
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.limits import Prices, Quotas
from novacron.accounts.database.people import Keys, Roles, Tenants, Users
from novacron.accounts.database.policies import Policies
from novacron.accounts.database.schema import open_database
from novacron.accounts.database.shared_state import DatabaseState
from novacron.accounts.usage import UsageQuestion, UsageRow
from novacron.coordination.lease import Fence


class Store:
    """Accounts in the database at `url`: an Administration, and a way to the ledger."""

    def __init__(self, url: str) -> None:
        """Makes the tables, where there are none. Raises ConfigError and DatabaseUnavailable."""
        self.database = open_database(url)
        self.tenants = Tenants(self.database)
        self.users = Users(self.database)
        self.roles = Roles(self.database)
        self.keys = Keys(self.database)
        self.quotas = Quotas(self.database)
        self.prices = Prices(self.database)
        self.policies = Policies(self.database)

    def book(self, coordinator: str = "") -> LedgerBook:
        """For a coordinator that starts."""
        return LedgerBook(self.database, coordinator=coordinator)

    def shared_state(self) -> DatabaseState:
        """For coordinators beside each other."""
        return DatabaseState(self.database)

    def data_keys(self) -> DatabasePlace:
        """Of what is kept encrypted in it."""
        return DatabasePlace(self.database)

    def usage(self, question: UsageQuestion) -> list[UsageRow]:
        return usage_rows.ask(self.database, question)

    def purge_usage(self, tenant: str, before_s: float, fence: Fence | None = None) -> int:
        return usage_rows.purge(self.database, tenant, before_s, fence)

    def verify(self) -> list[str]:
        """Balances that are not the sum of their entries, in sentences."""
        return audit.differences(self.database)

    def backup(self, file: Path) -> int:
        return backup.backup(self.database, file)

    def restore(self, file: Path) -> int:
        return backup.restore(self.database, file)

    def close(self) -> None:
        self.database.close()
