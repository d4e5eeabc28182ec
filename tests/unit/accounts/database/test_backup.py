from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from sqlalchemy import select

from novacron.accounts.database.backup import backup, restore
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.limits import Prices, Quotas
from novacron.accounts.database.people import Keys, Roles, Tenants, Users
from novacron.accounts.database.schema import open_database
from novacron.accounts.database.tables import TRANSIENT, leases, metadata
from novacron.accounts.posting import Reserve, Settle, Usage
from novacron.accounts.price import Price
from novacron.accounts.quota import Account, Quota
from novacron.accounts.wish import Wish
from novacron.errors import AccountConflict, ConfigError


@pytest.fixture
def full(database: Database) -> Database:
    """With something in every table that a backup takes, and in one that it leaves out."""
    Tenants(database).create("acme", name='Äcme "&" Co')
    Users(database).create("ann", tenant_id="acme", roles=("admin",))
    Roles(database).create("auditor", permissions=("audit:read",))
    Keys(database).create(prefix="nk_1", hash="h", tenant_id="acme", user_id="ann")
    Quotas(database).set("tenant", "acme", Quota(tokens_per_day=1000, models=("m",)))
    Prices(database).set("m", Price(prompt_micro=150_000))
    book = LedgerBook(database)
    account, wish = (
        Account("acme", "ann"),
        Wish(prompts=(10,), answers=(20,), model="m", model_len=100),
    )
    book.post([Reserve("1", account, wish), Reserve("2", account, wish)])
    book.post([Settle("1", account, Usage(prompt_tokens=10, output_tokens=3))])
    with database.writing() as connection:
        connection.execute(
            leases.insert(), {"duty": "d", "holder": "h", "epoch": 1, "expires_ms": 1}
        )
    return database


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    with database.reading() as connection:
        return {
            table.name: sorted(tuple(map(str, row)) for row in connection.execute(select(table)))
            for table in metadata.sorted_tables
            if table.info != TRANSIENT
        }


@pytest.fixture
def empty(tmp_path: Path) -> Database:
    return open_database(f"sqlite:///{tmp_path}/restored.db")


def test_everything_comes_back_on_an_empty_server(
    full: Database, empty: Database, tmp_path: Path
) -> None:
    before = contents(full)
    assert all(before.values())
    num_rows = backup(full, tmp_path / "all.backup")
    assert num_rows == sum(map(len, before.values()))
    assert restore(empty, tmp_path / "all.backup") == num_rows
    assert contents(empty) == before
    assert (tmp_path / "all.backup").stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.partial"))


def test_the_restored_ledger_goes_on_where_the_old_one_was(
    full: Database, empty: Database, tmp_path: Path
) -> None:
    backup(full, tmp_path / "all.backup")
    restore(empty, tmp_path / "all.backup")
    account = Account("acme", "ann")
    with empty.reading() as connection:
        before = connection.execute(select(metadata.tables["ledger"].c.coordinator)).scalars()
        book = LedgerBook(empty, coordinator=before.all()[0])
    book.post([Settle("2", account, Usage(prompt_tokens=10, output_tokens=1))])
    table = metadata.tables["balances"]
    with empty.reading() as connection:
        tokens = connection.execute(select(table.c.day_tokens, table.c.active_requests)).all()
    assert [tuple(row) for row in tokens] == [(24, 0), (24, 0)]


def test_it_restores_into_nothing_else_than_an_empty_database(
    full: Database, tmp_path: Path
) -> None:
    backup(full, tmp_path / "all.backup")
    before = contents(full)
    with pytest.raises(AccountConflict, match="not empty"):
        restore(full, tmp_path / "all.backup")
    assert contents(full) == before


def test_a_file_that_is_cut_off_or_changed_writes_nothing(
    full: Database, empty: Database, tmp_path: Path
) -> None:
    file = tmp_path / "all.backup"
    backup(full, file)
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    broken = [
        whole[:-20],
        b"no gzip",
        b"",
        gzip.compress(b"".join(lines[:-1])),
        gzip.compress(b"".join(lines[:3] + lines[4:])),
        gzip.compress(lines[0].replace(b"0003", b"0004") + b"".join(lines[1:])),
        gzip.compress(lines[0] + b'{"table":"strangers","row":{}}\n' + b'{"num_rows":1}'),
    ]
    for data in broken:
        file.write_bytes(data)
        with pytest.raises(ConfigError):
            restore(empty, file)
    with pytest.raises(ConfigError, match="no backup"):
        restore(empty, tmp_path / "missing")
    assert not any(contents(empty).values())
