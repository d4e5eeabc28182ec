"""Wrapped data keys of what the database keeps encrypted, for all coordinators."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.connection import Database
from novacron.accounts.database.tables import data_keys
from novacron.errors import DatabaseUnavailable


class DatabasePlace:
    """Implements encryption.key_places.KeyPlace. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def shown(self) -> str:
        return f"{self._database.shown} (data_keys)"

    def read(self) -> Mapping[str, bytes]:
        try:
            with self._database.reading() as connection:
                found = connection.execute(select(data_keys.c.id, data_keys.c.data)).all()
        except DatabaseUnavailable as error:
            raise OSError(str(error)) from None
        return {row.id: row.data for row in found}

    def write(self, id: str, data: bytes) -> None:
        try:
            with self._database.writing() as connection:
                connection.execute(
                    insert_for(connection.dialect.name, data_keys)
                    .values(id=id, data=data)
                    .on_conflict_do_update(index_elements=["id"], set_={"data": data})
                )
        except DatabaseUnavailable as error:
            raise OSError(str(error)) from None
