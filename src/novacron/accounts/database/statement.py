"""Statements of the ledger as the driver itself takes them.

SQLAlchemy makes their text, once for each kind of database, and is left out when they run: finding
the text again, and wrapping what comes, takes it longer than SQLite needs for the work itself.
Errors are those of the driver, which Database knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, String, bindparam
from sqlalchemy.sql.elements import CompilerElement

_NAME: Final = "name_{}"


class Statement:
    """What `make(dialect)` makes, with bindparam() for all that varies."""

    def __init__(self, make: Callable[[str], CompilerElement]) -> None:
        self._make = make
        self._texts: dict[str, tuple[str, tuple[str, ...]]] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Once for each of `rows`, which name its parameters."""
        dialect = connection.dialect
        if dialect.name not in self._texts:
            compiled: Any = self._make(dialect.name).compile(dialect=dialect)
            self._texts[dialect.name] = (str(compiled), tuple(compiled.positiontup))
        text, order = self._texts[dialect.name]
        values = [tuple([row[name] for name in order]) for row in rows]
        connection.connection.cursor().executemany(text, values)


class Query:
    """What `make(names)` makes: a query for all rows that have one of these names.

    There is a text for each power of two; the places that are left get a name that is there.
    """

    def __init__(self, make: Callable[[Sequence[BindParameter[str]]], CompilerElement]) -> None:
        self._make = make
        self._texts: dict[tuple[str, int], str] = {}

    def rows(self, connection: Connection, names: Iterable[str]) -> Sequence[Sequence[Any]]:
        wanted = sorted(set(names))
        if not wanted:
            return ()
        num_places = 1 << (len(wanted) - 1).bit_length()
        wanted += wanted[-1:] * (num_places - len(wanted))
        key = (connection.dialect.name, num_places)
        if key not in self._texts:
            places = [bindparam(_NAME.format(n), type_=String()) for n in range(num_places)]
            self._texts[key] = str(self._make(places).compile(dialect=connection.dialect))
        cursor = connection.connection.cursor()
        cursor.execute(self._texts[key], wanted)
        rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows
