"""The ledger: what calls have reserved and used, posted in transactions of many postings.

The ledger is the limit: a call may start because its reservation is in here, so what is let
through and what is counted cannot differ. A coordinator holds a lease, and renews it; entries
that a coordinator left open when its lease ran out are closed by any other, as if all that they
had reserved was used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import uuid4

import msgspec
from sqlalchemy import Connection, Text, cast, delete, select

from novacron.accounts.database import balance_rows, lease_rows, stream_rows, tables
from novacron.accounts.database.clock import database_ms
from novacron.accounts.database.connection import Database
from novacron.accounts.database.entry_rows import (
    OPEN,
    Closer,
    EntryRow,
    account_of,
    closable,
    open_entries,
)
from novacron.accounts.database.statement import Query
from novacron.accounts.posting import Entry, Outcome, Posting, Reserve, Settle, decide
from novacron.accounts.price import Price
from novacron.accounts.quota import Quota
from novacron.coordination.lease import Fence
from novacron.errors import StreamIdInUse

LEASE_MS: Final = 30_000
KEPT_MS: Final = 35 * 86_400_000  # closed entries; usage is kept for good
_AT_ONCE: Final = 1000  # entries expired or deleted in one transaction

_QUOTAS: Final = Query(
    lambda subjects: select(tables.quotas.c.subject, cast(tables.quotas.c.quota, Text)).where(
        tables.quotas.c.subject.in_(subjects)
    )
)
_PRICES: Final = Query(
    lambda models: select(tables.prices.c.model, cast(tables.prices.c.price, Text)).where(
        tables.prices.c.model.in_(models)
    )
)


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class LedgerBook:
    """One coordinator's way to the ledger. Blocks; one call at a time, but for `sweep`."""

    def __init__(
        self,
        database: Database,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        lease_ms: int = LEASE_MS,
        coordinator: str = "",
    ) -> None:
        """`coordinator`: its id, or that of one that this goes on for; drawn, if it has none."""
        self.coordinator = coordinator or uuid4().hex
        self._database = database
        self._clock_ms = clock_ms
        self._lease_ms = lease_ms
        self._lease_until_ms = 0

    def post(self, postings: Sequence[Posting]) -> list[Outcome]:
        """All of `postings`, or none if it raises. Ids of reservations among them are new.

        An Entry or an error for each reservation; None for each end of a call. Raises
        DatabaseUnavailable; then it is not known whether they were posted.
        """
        now_ms = self._clock_ms()
        lease_until_ms = max(self._lease_until_ms, 0)
        while True:
            try:
                with self._database.writing() as connection:
                    if lease_until_ms - now_ms < self._lease_ms // 2:
                        lease_until_ms = self._renew(connection, now_ms)
                    outcomes = self._post(connection, postings, now_ms)
            except _TakenMeanwhile:
                continue
            self._lease_until_ms = lease_until_ms
            return outcomes

    def renew(self) -> None:
        """Our lease: what we have left open stays so. Raises DatabaseUnavailable."""
        with self._database.writing() as connection:
            lease_until_ms = self._renew(connection, self._clock_ms())
        self._lease_until_ms = lease_until_ms

    def sweep(self, fence: Fence | None = None) -> int:
        """Close what vanished coordinators left, forget what is old. How many entries were closed;
        call again if it is many. A duty of one coordinator: `fence` is its lease, if there are
        several. Raises DatabaseUnavailable and LeaseLost."""
        now_ms = self._clock_ms()
        with self._database.writing() as connection:
            if fence is not None:
                lease_rows.check(connection, fence)
            num_expired = self._expire(connection, now_ms)
        with self._database.writing() as connection:
            if fence is not None:
                lease_rows.check(connection, fence)
            _forget(connection, now_ms)
        return num_expired

    def _post(
        self, connection: Connection, postings: Sequence[Posting], now_ms: int
    ) -> list[Outcome]:
        subjects = {s for posting in postings for s in posting.account.subjects}
        before = balance_rows.lock(connection, subjects)
        balances = dict(before)
        ends = {posting.id for posting in postings if isinstance(posting, Settle)}
        rows = self._ours(closable(connection, ends))
        closer = Closer(balances, _prices(connection, {row.model for row in rows.values()}), now_ms)
        quotas = _quotas(connection, subjects)
        in_use = _keys_in_use(connection, postings)
        outcomes: list[Outcome] = []
        granted: list[tuple[Reserve, Entry]] = []
        for posting in postings:
            if isinstance(posting, Settle):
                outcomes.append(None)
                if (row := rows.pop(posting.id, None)) is not None:
                    closer.settle(row, posting.usage)
                continue
            stream = posting.stream
            outcome: Outcome
            if stream is not None and stream.key in in_use:
                outcome = StreamIdInUse(stream.key.partition("/")[0])
            else:
                outcome = decide(posting, balances, quotas, now_ms)
            outcomes.append(outcome)
            if isinstance(outcome, Entry):
                granted.append((posting, outcome))
                in_use |= {stream.key} if stream is not None else set()
        changed = {s: b for s, b in balances.items() if b is not before[s]}
        balance_rows.write(connection, changed)
        open_entries(connection, self.coordinator, granted, now_ms)
        self._begin_streams(connection, granted)
        closer.write(connection)
        return outcomes

    def _ours(self, rows: dict[str, EntryRow]) -> dict[str, EntryRow]:
        """The others belong to streams that another coordinator has gone on with: it settles
        them."""
        return {id: row for id, row in rows.items() if row.coordinator == self.coordinator}

    def _begin_streams(
        self, connection: Connection, granted: Sequence[tuple[Reserve, Entry]]
    ) -> None:
        starts = [
            (reserve.stream, msgspec.msgpack.encode(entry))
            for reserve, entry in granted
            if reserve.stream is not None
        ]
        if starts and stream_rows.begin(
            connection, self.coordinator, starts, database_ms(connection)
        ):
            raise _TakenMeanwhile

    def _renew(self, connection: Connection, now_ms: int) -> int:
        until_ms = now_ms + self._lease_ms
        values = {"id": self.coordinator, "lease_until_ms": until_ms}
        statement = balance_rows.insert_for(connection.dialect.name, tables.coordinators).values(
            values
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["id"], set_={"lease_until_ms": until_ms}
            )
        )
        return until_ms

    def _expire(self, connection: Connection, now_ms: int) -> int:
        """Balances are locked before entries, as everywhere; so entries are looked at twice."""
        left = _left_open(connection, now_ms)
        if not left:
            return 0
        subjects = {subject for row in left for subject in account_of(row).subjects}
        balances = balance_rows.lock(connection, subjects)
        rows = closable(connection, [row.id for row in left])
        closer = Closer(balances, {}, now_ms)
        still_open = [row for row in rows.values() if row.state == OPEN]
        for row in still_open:
            closer.expire(row)
        balance_rows.write(connection, balances)
        closer.write(connection)
        return len(still_open)


class _TakenMeanwhile(Exception):
    """Another coordinator has begun a stream of the same key since we looked."""


def _keys_in_use(connection: Connection, postings: Sequence[Posting]) -> set[str]:
    streams = (posting.stream for posting in postings if isinstance(posting, Reserve))
    return stream_rows.taken_keys(connection, [s.key for s in streams if s is not None])


def _left_open(connection: Connection, now_ms: int) -> list[Any]:
    """Open entries of coordinators whose lease is over."""
    ledger, coordinators = tables.ledger, tables.coordinators
    statement = (
        select(ledger.c.id, ledger.c.tenant_id, ledger.c.user_id, ledger.c.key_id)
        .outerjoin(coordinators, coordinators.c.id == ledger.c.coordinator)
        .where(
            ledger.c.state == OPEN,
            (coordinators.c.lease_until_ms < now_ms) | coordinators.c.id.is_(None),
        )
        .limit(_AT_ONCE)
    )
    return list(connection.execute(statement))


def _forget(connection: Connection, now_ms: int) -> None:
    """Entries closed long ago, and coordinators that are gone and have left nothing open."""
    ledger, coordinators = tables.ledger, tables.coordinators
    old = select(ledger.c.id).where(ledger.c.closed_at_ms < now_ms - KEPT_MS).limit(_AT_ONCE)
    connection.execute(delete(ledger).where(ledger.c.id.in_(old)))
    is_needed = (
        select(ledger.c.id)
        .where(ledger.c.state == OPEN, ledger.c.coordinator == coordinators.c.id)
        .exists()
    )
    connection.execute(
        delete(coordinators).where(
            coordinators.c.lease_until_ms < now_ms - 2 * LEASE_MS, ~is_needed
        )
    )


def _quotas(connection: Connection, subjects: Iterable[str]) -> dict[str, Quota]:
    rows = _QUOTAS.rows(connection, subjects)
    return {subject: msgspec.json.decode(text, type=Quota) for subject, text in rows}


def _prices(connection: Connection, models: Iterable[str]) -> dict[str, Price]:
    rows = _PRICES.rows(connection, models)
    return {model: msgspec.json.decode(text, type=Price) for model, text in rows}
