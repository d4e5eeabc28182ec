"""Coordinators that are there, read and written within a transaction."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, delete, select

from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.tables import members
from novacron.coordination.member import Member

_FIELDS: Final = Member.__struct_fields__
_SHOWN_MS: Final = 3_600_000  # for so long after its end a coordinator that was killed is shown


def write(connection: Connection, member: Member) -> None:
    values = msgspec.structs.asdict(member)
    statement = insert_for(connection.dialect.name, members).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def read(connection: Connection) -> dict[str, Member]:
    rows = connection.execute(select(*(members.c[name] for name in _FIELDS)))
    return {row.id: Member(**dict(zip(_FIELDS, row, strict=True))) for row in rows}


def remove(connection: Connection, member_id: str) -> None:
    connection.execute(delete(members).where(members.c.id == member_id))


def forget(connection: Connection, now_ms: int) -> None:
    """Those that ended long ago."""
    connection.execute(delete(members).where(members.c.alive_until_ms < now_ms - _SHOWN_MS))
