"""Entries of the ledger opened and closed within a transaction, and what they add to usage.

An entry is open while its call runs. It is settled with what the call took, void if that never
ran, and expired if its coordinator vanished: then all that it had reserved counts, until the
coordinator turns up after all and settles it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, String, bindparam, insert, literal_column, select, update

from novacron.accounts.balance import Balance, Closing, given_back
from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.statement import Query, Statement
from novacron.accounts.database.tables import ledger, usage
from novacron.accounts.posting import Entry, Reserve, Usage
from novacron.accounts.price import FREE, Price, cost_pico
from novacron.accounts.quota import Account

OPEN: Final = "open"
SETTLED: Final = "settled"
VOID: Final = "void"
EXPIRED: Final = "expired"

_KEY: Final = tuple(column.name for column in usage.primary_key.columns)
_SUMS: Final = tuple(column.name for column in usage.columns if not column.primary_key)
_NOT_FINAL: Final = [literal_column(f"'{state}'", String) for state in (OPEN, EXPIRED)]


class EntryRow(NamedTuple):
    """What an entry of the ledger says that its end needs."""

    id: str
    coordinator: str
    state: str
    tenant_id: str
    user_id: str
    key_id: str
    model: str
    variant: str
    day: int
    hour: int
    reserved_tokens: int


_CLOSABLE: Final = Query(
    lambda ids: (
        select(*(ledger.c[name] for name in EntryRow._fields))
        .where(ledger.c.id.in_(ids), ledger.c.state.in_(_NOT_FINAL))
        .order_by(ledger.c.id)
        .with_for_update()
    )
)
_OPEN: Final = Statement(
    lambda dialect: insert(ledger).values(
        {column.name: bindparam(column.name) for column in ledger.columns if not column.nullable}
    )
)
_CLOSE: Final = Statement(
    lambda dialect: (
        update(ledger)
        .where(ledger.c.id == bindparam("of"))
        .values(
            state=bindparam("to_state"),
            closed_at_ms=bindparam("at_ms"),
            prompt_tokens=bindparam("prompt"),
            cached_tokens=bindparam("cached"),
            output_tokens=bindparam("output"),
        )
    )
)


_ADD: Final = Statement(lambda dialect: _adding(insert_for(dialect, usage)))


def _adding(insertion: Any) -> Any:
    return insertion.values(
        {column.name: bindparam(column.name) for column in usage.columns}
    ).on_conflict_do_update(
        index_elements=_KEY,
        set_={name: usage.c[name] + insertion.excluded[name] for name in _SUMS},
    )


def open_entries(
    connection: Connection,
    coordinator: str,
    granted: Sequence[tuple[Reserve, Entry]],
    now_ms: int,
) -> None:
    rows = [
        {
            "id": entry.id,
            "state": OPEN,
            "coordinator": coordinator,
            "tenant_id": reserve.account.tenant_id,
            "user_id": reserve.account.user_id,
            "key_id": reserve.account.key_id,
            "model": reserve.wish.model,
            "variant": reserve.wish.variant,
            "reserved_at_ms": now_ms,
            "day": entry.day,
            "hour": entry.hour,
            "reserved_tokens": entry.tokens,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "output_tokens": 0,
        }
        for reserve, entry in granted
    ]
    if rows:
        _OPEN.run(connection, rows)


def closable(connection: Connection, ids: Iterable[str]) -> dict[str, EntryRow]:
    """Those of `ids` that are not closed for good, locked."""
    return {row[0]: EntryRow._make(row) for row in _CLOSABLE.rows(connection, ids)}


class Closer:
    """Closes entries in a transaction: collects, and writes all at once."""

    def __init__(self, balances: dict[str, Balance], prices: dict[str, Price], now_ms: int) -> None:
        self._balances = balances
        self._prices = prices
        self._now_ms = now_ms
        self._closed: list[dict[str, Any]] = []
        self._sums: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_SUMS))

    def settle(self, row: EntryRow, used: Usage | None) -> None:
        """An open or expired entry; None: the call never ran."""
        if row.state == EXPIRED:
            self._add(row, requests=-1, expired=-row.reserved_tokens)
        if used is not None:
            self._add(row, requests=1, used=used)
        self._give_back(row, 0 if used is None else used.tokens, never_ran=used is None)
        self._close(row, VOID if used is None else SETTLED, used or Usage())

    def expire(self, row: EntryRow) -> None:
        """An open entry: all that it had taken counts."""
        self._add(row, requests=1, expired=row.reserved_tokens)
        self._give_back(row, row.reserved_tokens, never_ran=False)
        self._close(row, EXPIRED, Usage())

    def write(self, connection: Connection) -> None:
        """All but the balances."""
        if self._closed:
            _CLOSE.run(connection, self._closed)
        changed = [(key, sums) for key, sums in sorted(self._sums.items()) if any(sums)]
        if changed:
            names = (*_KEY, *_SUMS)
            rows = [dict(zip(names, (*key, *sums), strict=True)) for key, sums in changed]
            _ADD.run(connection, rows)

    def _give_back(self, row: EntryRow, used_tokens: int, *, never_ran: bool) -> None:
        closing = Closing(
            day=row.day,
            hour=row.hour,
            taken_tokens=row.reserved_tokens,
            used_tokens=used_tokens,
            was_active=row.state == OPEN,
            never_ran=never_ran,
        )
        for subject in account_of(row).subjects:
            self._balances[subject] = given_back(self._balances[subject], closing)

    def _add(
        self, row: EntryRow, *, requests: int, used: Usage | None = None, expired: int = 0
    ) -> None:
        """Usage belongs to the hour in which the call began, as its tokens to the day."""
        used = used or Usage()
        cost = cost_pico(self._prices.get(row.model, FREE), used)
        sums = self._sums[tuple(getattr(row, name) for name in _KEY)]
        counted = (used.prompt_tokens, used.cached_tokens, used.output_tokens)
        for i, more in enumerate((requests, *counted, expired, cost)):
            sums[i] += more

    def _close(self, row: EntryRow, state: str, used: Usage) -> None:
        self._closed.append(
            {
                "of": row.id,
                "to_state": state,
                "at_ms": self._now_ms,
                "prompt": used.prompt_tokens,
                "cached": used.cached_tokens,
                "output": used.output_tokens,
            }
        )


def account_of(row: Any) -> Account:
    """Of an EntryRow, or another with these names."""
    return Account(row.tenant_id, row.user_id, row.key_id)
