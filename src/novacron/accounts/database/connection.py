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
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError, DatabaseUnavailable

_DIALECTS: Final = ("sqlite", "postgresql")
_BUSY_TIMEOUT_S: Final = 10.0
_CONNECT_TIMEOUT_S: Final = 5
_ANSWER_TIMEOUT_MS: Final = 10_000
_READS: Final = "novacron_reads"
_HINT: Final = (
    "give sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME (pip install "
    "novacron[postgres])"
)


class Database:
    """One pool of connections. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises ConfigError for a URL that is none of ours."""
        self.shown = mask_url(url)
        self._engine = _engine(url, self.shown)

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
        try:
            yield
        except DBAPIError as error:
            if _is_fault_of_ours(error):
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
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=4,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "tcp_user_timeout": _ANSWER_TIMEOUT_MS,
                "options": f"-c lock_timeout={_ANSWER_TIMEOUT_MS}",
            },
        )
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"database is '{shown}': {error}; {_HINT}.") from error


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise ConfigError("database is SQLite in memory, which nothing survives: name a file.")
    engine = create_engine(url, poolclass=QueuePool, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _is_fault_of_ours(error: DBAPIError) -> bool:
    """Statements that can never work, rather than a server that is gone or busy."""
    kind = type(error).__name__
    return kind in ("ProgrammingError", "IntegrityError", "DataError", "NotSupportedError")


def _reason(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0] or type(error).__name__
