"""Does the ledger agree with itself? Balances against the sum of their entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Row, select

from novacron.accounts.database.connection import Database
from novacron.accounts.database.entry_rows import EXPIRED, OPEN, VOID, account_of
from novacron.accounts.database.tables import balances, ledger


class EntryState(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the ledger, and what of it counts."""

    id: str
    state: str
    reserved_tokens: int
    used_tokens: int

    @property
    def counted_tokens(self) -> int:
        """An open or expired one counts in full: nobody knows that it was less."""
        return self.reserved_tokens if self.state in (OPEN, EXPIRED) else self.used_tokens


def entries(database: Database) -> Iterator[EntryState]:
    """Those that are kept (ledger_book.KEPT_MS)."""
    with database.reading() as connection:
        for row in connection.execute(select(ledger)):
            yield _state_of(row)


def differences(database: Database) -> list[str]:
    """Every balance that is not what its entries of this day and hour sum up to, in a sentence.
    Seen in one state of the database, while others write."""
    tokens: defaultdict[tuple[str, int], int] = defaultdict(int)
    requests: defaultdict[tuple[str, int], int] = defaultdict(int)
    active: defaultdict[str, int] = defaultdict(int)
    with database.reading() as connection:
        for row in connection.execute(select(ledger)):
            counted = _state_of(row).counted_tokens
            for subject in account_of(row).subjects:
                tokens[subject, row.day] += counted
                requests[subject, row.hour] += row.state != VOID
                active[subject] += row.state == OPEN
        found = []
        for row in connection.execute(select(balances).order_by(balances.c.subject)):
            expected = (
                tokens[row.subject, row.day],
                requests[row.subject, row.hour],
                active[row.subject],
            )
            kept = (row.day_tokens, row.hour_requests, row.active_requests)
            if kept != expected:
                found.append(
                    f"{row.subject}: the balance has {kept} (tokens of the day, requests of the "
                    f"hour, running requests), and its entries sum up to {expected}."
                )
    return found


def _state_of(row: Row[Any]) -> EntryState:
    return EntryState(
        id=row.id,
        state=row.state,
        reserved_tokens=row.reserved_tokens,
        used_tokens=row.prompt_tokens + row.output_tokens,
    )
