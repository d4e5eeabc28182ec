"""All tables to one file and back.

The file holds lines of JSON, packed: a header, the rows of each table, and an end that counts them.
It is made from one state of the database while others write, and is the same for SQLite and
PostgreSQL, so that it also takes a server from one to the other. A file that was cut off or changed
is refused before anything is written.
"""

from __future__ import annotations

import gzip
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from novacron.accounts.database.connection import Database
from novacron.accounts.database.schema import HEAD
from novacron.accounts.database.tables import TRANSIENT, metadata
from novacron.errors import AccountConflict, ConfigError

_FORMAT: Final = "novacron accounts 1"
_ROWS_AT_ONCE: Final = 1000
_READABLE: Final = ("0001", "0002", HEAD)  # versions of the schema without lasting tables that went
_LASTING: Final = tuple(table for table in metadata.sorted_tables if table.info != TRANSIENT)


class _Header(msgspec.Struct, frozen=True):
    format: str
    schema: str
    created_at: int


class _Line(msgspec.Struct, frozen=True):
    table: str
    row: dict[str, Any]


class _End(msgspec.Struct, frozen=True):
    num_rows: int


def backup(database: Database, file: Path) -> int:
    """Write `file`, readable to its owner alone; how many rows. Raises ConfigError if it cannot be
    written, and DatabaseUnavailable."""
    partial = file.with_name(file.name + ".partial")
    num_rows = 0
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb") as out:
            out.write(_encoded(_Header(_FORMAT, HEAD, int(time.time()))))
            with database.reading() as connection:
                for line in _rows(connection):
                    out.write(_encoded(line))
                    num_rows += 1
            out.write(_encoded(_End(num_rows)))
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"The backup {file} cannot be written: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return num_rows


def restore(database: Database, file: Path) -> int:
    """Fill `database`, which must hold nothing; how many rows. All of them, or none.

    Raises ConfigError for a file that is no backup, not all of one, or of another version, and
    AccountConflict if there is something already.
    """
    for _ in _lines_of(file):
        pass  # all of it must be sound before the first row is written
    num_rows = 0
    with database.writing() as connection:
        for table in _LASTING:
            if connection.execute(select(table).limit(1)).first() is not None:
                raise AccountConflict(
                    f"The database {database.shown} is not empty: its table {table.name} has rows. "
                    "Restore into a new one."
                )
        waiting: dict[str, list[dict[str, Any]]] = {}
        for line in _lines_of(file):
            waiting.setdefault(line.table, []).append(line.row)
            num_rows += 1
            if len(waiting[line.table]) >= _ROWS_AT_ONCE:
                connection.execute(metadata.tables[line.table].insert(), waiting.pop(line.table))
        for table in _LASTING:
            if table.name in waiting:
                connection.execute(table.insert(), waiting[table.name])
    return num_rows


def _rows(connection: Connection) -> Iterator[_Line]:
    """Tables in an order in which what others refer to comes first."""
    for table in _LASTING:
        rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(table))
        for row in rows:
            yield _Line(str(table.name), {str(name): value for name, value in row._mapping.items()})


def _lines_of(file: Path) -> Iterator[_Line]:
    """Raises ConfigError at the place where the file is no backup of ours."""
    try:
        with gzip.open(file, "rb") as lines:
            header = msgspec.json.decode(next(lines, b""), type=_Header)
            if header.format != _FORMAT or header.schema not in _READABLE:
                raise ConfigError(
                    f"The backup {file} is of version {header.schema} ('{header.format}'); this "
                    f"NovaCron reads version {HEAD}."
                )
            num_rows, end = 0, None
            for text in lines:
                if text.startswith(b'{"num_rows"'):
                    end = msgspec.json.decode(text, type=_End)
                    continue
                line = msgspec.json.decode(text, type=_Line)
                if all(line.table != table.name for table in _LASTING):
                    raise ConfigError(f"The backup {file} has an unknown table '{line.table}'.")
                num_rows += 1
                yield line
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
        raise ConfigError(f"The file {file} is no backup, or not all of one: {error}.") from error
    if end is None or end.num_rows != num_rows:
        raise ConfigError(f"The backup {file} was cut off: {num_rows} rows are in it.")


def _encoded(line: msgspec.Struct) -> bytes:
    return msgspec.json.encode(line) + b"\n"
