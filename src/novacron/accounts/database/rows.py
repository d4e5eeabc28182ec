"""Rows of a table as values of one record class, whose fields are the columns."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Connection, RowMapping, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from novacron.accounts.database.connection import Database
from novacron.errors import AccountConflict, AccountNotFound, InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)


class Rows(Generic[T]):
    """All rows of `table`. `what` is what people call one."""

    def __init__(self, database: Database, table: Table, record: type[T], what: str) -> None:
        self._database = database
        self._table = table
        self._record = record
        self._what = what
        [self._key] = table.primary_key.columns

    def add(self, record: T) -> T:
        """Raises AccountConflict if its id is taken, InvalidRequest if what it names is not."""
        values = msgspec.structs.asdict(record)
        id = str(values[self._key.name])
        with self._database.writing() as connection:
            if self._get(connection, id) is not None:
                raise AccountConflict(f"There is a {self._what} '{id}' already.")
            try:
                connection.execute(insert(self._table).values(values))
            except IntegrityError as error:
                raise InvalidRequest(
                    f"The {self._what} '{id}' belongs to a tenant or user that does not exist."
                ) from error
        return record

    def get(self, id: str) -> T:
        """Raises AccountNotFound."""
        found = self.find(id)
        if found is None:
            raise AccountNotFound(self._what, id)
        return found

    def find(self, id: str) -> T | None:
        with self._database.reading() as connection:
            return self._get(connection, id)

    def list(self, **equal: Any) -> tuple[T, ...]:
        """Those whose columns have these values, in the order of their ids."""
        statement = select(self._table).order_by(self._key)
        for column, value in equal.items():
            if value is not None:
                statement = statement.where(self._table.c[column] == value)
        with self._database.reading() as connection:
            return tuple(self._record_of(row._mapping) for row in connection.execute(statement))

    def change(self, id: str, **values: Any) -> T:
        """Raises AccountNotFound, and InvalidRequest if what it names does not exist."""
        with self._database.writing() as connection:
            if self._get(connection, id) is None:
                raise AccountNotFound(self._what, id)
            if values:
                connection.execute(update(self._table).where(self._key == id).values(values))
            changed = self._get(connection, id)
        assert changed is not None
        return changed

    def remove(self, id: str) -> None:
        """Raises AccountNotFound, and AccountConflict while others depend on it."""
        with self._database.writing() as connection:
            try:
                result = connection.execute(delete(self._table).where(self._key == id))
            except IntegrityError as error:
                raise AccountConflict(
                    f"The {self._what} '{id}' has users or keys. Remove those before, or disable "
                    f"it instead."
                ) from error
        if result.rowcount == 0:
            raise AccountNotFound(self._what, id)

    def _get(self, connection: Connection, id: str) -> T | None:
        row = connection.execute(select(self._table).where(self._key == id)).first()
        return None if row is None else self._record_of(row._mapping)

    def _record_of(self, row: RowMapping) -> T:
        values = {str(name): value for name, value in row.items()}
        return msgspec.convert(values, self._record)
