"""Leases locked, read and written within a transaction; lease.py decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, select, update

from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.tables import leases
from novacron.coordination.lease import Fence, Lease, LeaseLost, decide, released

_FIELDS: Final = Lease.__struct_fields__
_ALL: Final = select(*(leases.c[name] for name in _FIELDS)).order_by(leases.c.duty)


def read(connection: Connection) -> tuple[Lease, ...]:
    return tuple(_leases(connection, _ALL))


def take(
    connection: Connection, duties: Iterable[str], wanted_by: str, now_ms: int, ttl_ms: int
) -> None:
    """Those of `duties` that are free, or `wanted_by`'s already. Rows that another one holds are
    not locked, in the order of their names."""
    known = {lease.duty: lease for lease in read(connection)}
    for duty in sorted(duties):
        if duty not in known:
            vacant = msgspec.structs.asdict(Lease(duty))
            connection.execute(
                insert_for(connection.dialect.name, leases).values(vacant).on_conflict_do_nothing()
            )
        elif decide(known[duty], wanted_by, now_ms, ttl_ms) is None:
            continue
        lease = decide(_locked(connection, duty), wanted_by, now_ms, ttl_ms)
        if lease is not None:
            _write(connection, lease)


def release_all(connection: Connection, holder: str) -> None:
    for lease in _leases(connection, _ALL.where(leases.c.holder == holder).with_for_update()):
        _write(connection, released(lease, holder))


def check(connection: Connection, fence: Fence) -> None:
    """To be called first in a transaction: the lease cannot change hands before its end. Raises
    LeaseLost."""
    if not fence.lets_pass(_locked(connection, fence.duty)):
        raise LeaseLost(f"The duty '{fence.duty}' has gone to another coordinator.")


def _locked(connection: Connection, duty: str) -> Lease:
    found = _leases(connection, _ALL.where(leases.c.duty == duty).with_for_update())
    return found[0] if found else Lease(duty)


def _leases(connection: Connection, statement: Select[Any]) -> list[Lease]:
    return [Lease(*row) for row in connection.execute(statement)]


def _write(connection: Connection, lease: Lease) -> None:
    values = msgspec.structs.asdict(lease)
    connection.execute(update(leases).where(leases.c.duty == values.pop("duty")).values(values))
