from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from novacron.accounts.database.connection import Database
from novacron.accounts.database.schema import HEAD, open_database, version_of
from novacron.accounts.database.tables import metadata
from novacron.errors import ConfigError, DatabaseUnavailable
from novacron.testing.postgres_server import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/accounts.db"
    return new_database(request.getfixturevalue("postgres"), f"empty_{uuid4().hex}")


def test_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.reading() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
        assert version_of(connection) == HEAD
    assert differences == []


def test_opening_again_changes_nothing(database: Database, database_url: str) -> None:
    again = open_database(database_url)
    with again.reading() as connection:
        assert version_of(connection) == HEAD
    again.close()


def test_tables_of_a_newer_version_are_left_alone(database: Database, database_url: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="version 9999"):
        open_database(database_url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/x", "only SQLite and PostgreSQL"),
        ("sqlite://", "name a file"),
        ("nonsense", "sqlite:///FILE"),
        ("postgresql+nodriver://localhost/x", "postgresql://"),
    ],
)
def test_what_is_no_database_of_ours_is_told(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Database(url)


def test_the_file_is_readable_to_its_owner_alone(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path}/folder/accounts.db").close()
    assert (tmp_path / "folder/accounts.db").stat().st_mode & 0o077 == 0
    assert (tmp_path / "folder").stat().st_mode & 0o077 == 0


def test_a_server_that_is_gone_is_told_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://me:secret@/x?unix_sock={tmp_path}/nobody"
    with pytest.raises(DatabaseUnavailable) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)
