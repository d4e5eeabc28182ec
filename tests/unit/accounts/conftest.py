"""Databases of both kinds. Tables are made once; each test gets them empty."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from novacron.accounts.database.connection import Database
from novacron.accounts.database.schema import open_database
from novacron.accounts.database.tables import metadata
from novacron.testing.postgres_server import find_programs, new_database, running_postgres

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    if find_programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with running_postgres("fsync=off") as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "accounts.db"
    open_database(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def postgres_url(postgres: Path) -> str:
    url = new_database(postgres, "shared")
    open_database(url).close()
    return url


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database with tables, and nothing in them."""
    if request.param == "sqlite":
        file = tmp_path / "accounts.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        return f"sqlite:///{file}"
    url: str = request.getfixturevalue("postgres_url")
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    database.close()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    yield database
    database.close()
