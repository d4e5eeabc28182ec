"""A database opened: SQLite for one machine, PostgreSQL for several coordinators.

SQLite runs in WAL mode with a sync at each commit, so that what was committed survives a loss of
power. Its transactions take the write lock at their start: two processes never read the same
balance and both spend it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.pool import QueuePool

from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError, DatabaseUnavailable

_DIALECTS: Final = ("sqlite", "postgresql")
_BUSY_TIMEOUT_S: Final = 10.0
_ANSWER_TIMEOUT_S: Final = 10.0
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "wal_autocheckpoint = 10000",  # pages, 40 MB: everybody waits for one
)
_READS: Final = "novacron_reads"
_INTEGRITY: Final = "23"  # the class of a SQLSTATE
_OURS: Final = ("22", "42")  # data and statements that can never work
_FAULTS_OF_OURS: Final = ("ProgrammingError", "IntegrityError", "DataError", "NotSupportedError")
_HINT: Final = (
    "give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME (pip install novacron[postgres])"
)


class Database:
    """One pool of connections. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises ConfigError for a URL that is none of ours."""
        self.shown = mask_url(url)
        self._engine = _engine(url, self.shown)
        self._driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """That of SQLite."""
        name = self._engine.url.database
        return Path(name) if self.is_sqlite and name else None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end. Raises DatabaseUnavailable."""
        with self._telling(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state and blocks no writer. Raises DatabaseUnavailable."""
        options: dict[str, Any] = {_READS: True}
        if not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"
        engine = self._engine.execution_options(**options)
        with self._telling(), engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors come from SQLAlchemy, or, of a Statement, from the driver."""
        try:
            yield
        except (DBAPIError, OSError, self._driver_error) as error:
            name = type(error).__name__
            if isinstance(error, self._driver_error):
                name = _kind_of(error) or name
            if name in _FAULTS_OF_OURS:
                raise
            raise DatabaseUnavailable(
                f"The database {self.shown} cannot be used now: {_reason(error)}"
            ) from error


def _engine(url: str, shown: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in _DIALECTS:
            raise ConfigError(f"database is '{shown}': only SQLite and PostgreSQL; {_HINT}.")
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        return _postgresql(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"database is '{shown}': {error}; {_HINT}.") from error


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise ConfigError("database is SQLite in memory, which nothing survives: name a file.")
    engine = create_engine(url, poolclass=QueuePool, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+pg8000")
    lock_timeout_ms = round(_ANSWER_TIMEOUT_S / 2 * 1e3)
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=4,
        connect_args={
            "timeout": _ANSWER_TIMEOUT_S,
            "startup_params": {
                "lock_timeout": str(lock_timeout_ms),
                # a coordinator that is stopped in a transaction keeps its locks no longer
                "idle_in_transaction_session_timeout": str(lock_timeout_ms),
            },
        },
    )
    event.listen(engine, "handle_error", _by_its_state)
    return engine


def _by_its_state(context: ExceptionContext) -> DBAPIError | None:
    original = context.original_exception
    kinds = {"OperationalError": OperationalError, "IntegrityError": IntegrityError}
    kind = kinds.get(_kind_of(original))
    return None if kind is None else kind(context.statement, context.parameters, original)


def _kind_of(error: BaseException) -> str:
    """PostgreSQL's driver calls most errors of the server by one name; SQLSTATE tells them apart.
    Empty where its own name says what it is."""
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    state = str(fields.get("C", ""))
    if not state or state.startswith(_OURS):
        return ""
    return "IntegrityError" if state.startswith(_INTEGRITY) else "OperationalError"


def _reason(error: BaseException) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    if original is not None and original.args and isinstance(original.args[0], dict):
        return str(original.args[0].get("M", original))  # PostgreSQL's own message
    return str(original).strip().partition("\n")[0] or type(error).__name__
