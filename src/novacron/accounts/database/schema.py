"""The schema brought to the version that this code knows.

Looked at with one query when a database is opened; Alembic is imported only if there is something
to do. Several coordinators may start at once: one migrates, the others wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from sqlalchemy import Connection, inspect, text

from novacron.accounts.database.connection import Database
from novacron.errors import ConfigError

HEAD: Final = "0004"
_LOCK: Final = 0x6E6F7661  # "nova": any number that other programs on the server do not take


def open_database(url: str) -> Database:
    """The database, with the tables of this version. Raises ConfigError if it belongs to a newer
    version, and DatabaseUnavailable."""
    database = Database(url)
    if database.file is not None:
        database.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database.file.touch(mode=0o600)
    try:
        with database.reading() as connection:
            version = version_of(connection)
        if version != HEAD:
            _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def version_of(connection: Connection) -> str | None:
    """None where there are no tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return version


def _migrate(database: Database) -> None:
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        import_module("novacron.accounts.database.migrations.upgrade").upgrade(
            connection, database.shown
        )


def newer_version(version: str, shown: str) -> ConfigError:
    return ConfigError(
        f"The database {shown} has tables of version {version}, which this NovaCron (version "
        f"{HEAD}) does not know: it was used with a newer one. Use that, or restore a backup."
    )
