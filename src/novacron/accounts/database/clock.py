"""The time by the database's clock, the only one that all coordinators have in common."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

_SQLITE: Final = text("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)")
_POSTGRESQL: Final = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)")


def database_ms(connection: Connection) -> int:
    """Unix milliseconds."""
    statement = _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL
    now_ms: int = connection.execute(statement).scalar_one()
    return now_ms
