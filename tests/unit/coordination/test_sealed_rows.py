"""Streams on record that only holders of the key can read, in a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update

from novacron.accounts.database import tables
from novacron.accounts.database.shared_state import DatabaseState
from novacron.accounts.database.store import Store
from novacron.accounts.posting import Entry, Reserve
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.coordination.sealed_rows import SealedRows
from novacron.coordination.streams import RELEASED, Chunk, Claim, StreamStart
from novacron.encryption.key_ring import KeyRing
from novacron.encryption.key_sources import open_master_keys
from novacron.encryption.master_keys import new_master_key
from novacron.encryption.sealing import Sealing
from novacron.errors import NotReady

KEY = "s/acme"
SECRETS = (b"a question", b"an answer", b"more of it")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/accounts.db")
    yield store
    store.close()


def rows_with(store: Store, file: Path) -> SealedRows:
    ring = KeyRing(store.data_keys(), open_master_keys(f"file:{file}", {}))
    return SealedRows(DatabaseState(store.database), Sealing(ring))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return key_at(tmp_path / "one", new_master_key())


def key_at(file: Path, *keys: str) -> Path:
    file.touch(mode=0o600)
    file.write_text("\n".join(keys))
    return file


def begin(store: Store, rows: SealedRows) -> None:
    start = StreamStart(
        key=KEY,
        is_background=False,
        model="m",
        prompt=b"p",
        request=rows.seal_request(KEY, SECRETS[0]),
    )
    wish = Wish(prompts=(1,), answers=(1,), model="m", model_len=10)
    [entry] = store.book("a").post([Reserve("1", Account("acme"), wish, start)])
    assert isinstance(entry, Entry)
    chunks = [Chunk(KEY, 1, number, data) for number, data in enumerate(SECRETS[1:])]
    assert rows.append("a", chunks, []) == set()


def everything(store: Store) -> bytes:
    """All values of all tables."""
    with store.database.reading() as connection:
        rows = [
            value
            for table in tables.metadata.sorted_tables
            for row in connection.execute(text(f"SELECT * FROM {table.name}"))
            for value in row
        ]
    return b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in rows)


def test_what_was_said_is_nowhere_in_the_database_and_comes_back_from_it(
    store: Store, key_file: Path
) -> None:
    rows = rows_with(store, key_file)
    begin(store, rows)
    assert not any(secret in everything(store) for secret in SECRETS)
    assert KEY.encode() in everything(store)
    taken = rows_with(store, key_file).claim(KEY, Claim("b", "a", 1))
    assert taken is not None
    assert (taken.start.request, *taken.chunks) == SECRETS


def test_records_are_read_after_a_rotation(store: Store, tmp_path: Path) -> None:
    old, new = new_master_key(), new_master_key()
    begin(store, rows_with(store, key_at(tmp_path / "old", old)))
    both = open_master_keys(f"file:{key_at(tmp_path / 'both', new, old)}", {})
    assert KeyRing(store.data_keys(), both).rotate().num_wrapped_anew == 1
    taken = rows_with(store, key_at(tmp_path / "new", new)).claim(KEY, Claim("b", "a", 1))
    assert taken is not None
    assert taken.chunks == SECRETS[1:]


def test_who_has_another_key_gives_the_stream_back(
    store: Store, key_file: Path, tmp_path: Path
) -> None:
    begin(store, rows_with(store, key_file))
    other = rows_with(store, key_at(tmp_path / "two", new_master_key()))
    with pytest.raises(NotReady, match="same encryption_key"):
        other.claim(KEY, Claim("b", "a", 1))
    row = other.find(KEY)
    assert row is not None
    assert row.owner == RELEASED
    taken = rows_with(store, key_file).claim(KEY, Claim("c", RELEASED, row.epoch))
    assert taken is not None
    assert taken.chunks == SECRETS[1:]


def test_chunks_that_were_exchanged_are_noticed(store: Store, key_file: Path) -> None:
    rows = rows_with(store, key_file)
    begin(store, rows)
    chunks = tables.stream_chunks
    with store.database.writing() as connection:
        for before, after in ((0, 7), (1, 0), (7, 1)):
            connection.execute(update(chunks).where(chunks.c.number == before).values(number=after))
    with pytest.raises(NotReady, match="changed"):
        rows.claim(KEY, Claim("b", "a", 1))
