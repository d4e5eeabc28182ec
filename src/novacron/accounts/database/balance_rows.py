"""Balances locked, read and written within a transaction.

Locks are always taken before any other of the ledger's, in the order of the subjects, so that
transactions wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from novacron.accounts.balance import Balance
from novacron.accounts.database.tables import balances

_FIELDS: Final = Balance.__struct_fields__
_LOCK: Final = (
    select(balances.c.subject, *(balances.c[name] for name in _FIELDS))
    .where(balances.c.subject.in_(bindparam("subjects", expanding=True)))
    .order_by(balances.c.subject)
    .with_for_update()
)
_WRITE: Final = (
    update(balances)
    .where(balances.c.subject == bindparam("of"))
    .values({name: bindparam(name) for name in _FIELDS})
)


def insert_for(connection: Connection, table: Any) -> Any:
    """INSERT with the ON CONFLICT that both databases have."""
    module = sqlite if connection.dialect.name == "sqlite" else postgresql
    return module.insert(table)


def lock(connection: Connection, subjects: Iterable[str]) -> dict[str, Balance]:
    """The balances of all `subjects`, ours until the end of the transaction."""
    wanted = sorted(set(subjects))
    found = _locked(connection, wanted)
    missing = [subject for subject in wanted if subject not in found]
    if missing:
        fresh = msgspec.structs.asdict(Balance())
        connection.execute(
            insert_for(connection, balances).on_conflict_do_nothing(),
            [{"subject": subject, **fresh} for subject in missing],
        )
        found |= _locked(connection, missing)
    return found


def write(connection: Connection, changed: Mapping[str, Balance]) -> None:
    if changed:
        connection.execute(
            _WRITE,
            [{"of": s, **msgspec.structs.asdict(b)} for s, b in sorted(changed.items())],
        )


def _locked(connection: Connection, subjects: list[str]) -> dict[str, Balance]:
    rows = connection.execute(_LOCK, {"subjects": subjects})
    return {
        subject: Balance(**dict(zip(_FIELDS, values, strict=True))) for subject, *values in rows
    }
