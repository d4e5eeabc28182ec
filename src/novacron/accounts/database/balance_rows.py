"""Balances locked, read and written within a transaction.

Locks are always taken before any other of the ledger's, in the order of the subjects, so that
transactions wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from novacron.accounts.balance import Balance
from novacron.accounts.database.statement import Query, Statement
from novacron.accounts.database.tables import balances

_FIELDS: Final = Balance.__struct_fields__
_LOCK: Final = Query(
    lambda subjects: (
        select(balances.c.subject, *(balances.c[name] for name in _FIELDS))
        .where(balances.c.subject.in_(subjects))
        .order_by(balances.c.subject)
        .with_for_update()
    )
)
_WRITE: Final = Statement(
    lambda dialect: (
        update(balances)
        .where(balances.c.subject == bindparam("of"))
        .values({name: bindparam(name) for name in _FIELDS})
    )
)
_BEGIN: Final = Statement(
    lambda dialect: (
        insert_for(dialect, balances)
        .values({name: bindparam(name) for name in ("subject", *_FIELDS)})
        .on_conflict_do_nothing()
    )
)


def insert_for(dialect: str, table: Any) -> Any:
    """INSERT with the ON CONFLICT that both databases have."""
    module = sqlite if dialect == "sqlite" else postgresql
    return module.insert(table)


def lock(connection: Connection, subjects: Iterable[str]) -> dict[str, Balance]:
    """The balances of all `subjects`, ours until the end of the transaction."""
    wanted = set(subjects)
    found = _locked(connection, wanted)
    missing = sorted(wanted - found.keys())
    if missing:
        fresh = _values(Balance())
        _BEGIN.run(connection, [{"subject": subject, **fresh} for subject in missing])
        found |= _locked(connection, missing)
    return found


def write(connection: Connection, changed: Mapping[str, Balance]) -> None:
    if changed:
        rows = [{"of": subject, **_values(changed[subject])} for subject in sorted(changed)]
        _WRITE.run(connection, rows)


def _locked(connection: Connection, subjects: Iterable[str]) -> dict[str, Balance]:
    rows = _LOCK.rows(connection, subjects)
    return {
        subject: Balance(**dict(zip(_FIELDS, values, strict=True))) for subject, *values in rows
    }


def _values(balance: Balance) -> dict[str, int]:
    return {name: getattr(balance, name) for name in _FIELDS}
