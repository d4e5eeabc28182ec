from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from novacron.accounts.database.connection import Database
from novacron.accounts.database.schema import open_database
from novacron.testing.postgres_server import find_programs, new_database, running_postgres

MakeUrl = Callable[[], str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    if find_programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with running_postgres("fsync=off") as server:
        yield server


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, _numbers: Iterator[int]) -> str:
    """Of a database that is new and empty, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/accounts.db"
    return new_database(request.getfixturevalue("postgres"), f"test{next(_numbers)}")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    yield database
    database.close()
