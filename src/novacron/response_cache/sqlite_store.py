"""SqliteStore: answers in a file of this machine, which a restart and other processes find again.

One connection, used in one thread after another; the loop never waits for the disk. Times are Unix
time, because entries outlive the process. Nothing is forced to the medium (synchronous OFF): after
a power cut the file may be damaged, and is begun anew then; it is a cache.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from novacron.response_cache.identity import Key
from novacron.response_cache.store import Amount, StoreFailed

T = TypeVar("T")

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS answers (
  tenant TEXT NOT NULL, digest TEXT NOT NULL, data BLOB NOT NULL, num_bytes INTEGER NOT NULL,
  expires_s REAL NOT NULL, used_s REAL NOT NULL, num_hits INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_use ON answers (used_s);
CREATE INDEX IF NOT EXISTS answers_by_end ON answers (expires_s);
"""
_GET: Final = """
UPDATE answers SET num_hits = num_hits + 1, used_s = ?
WHERE tenant = ? AND digest = ? AND expires_s > ? RETURNING data
"""
_PUT: Final = """
INSERT OR REPLACE INTO answers (tenant, digest, data, num_bytes, expires_s, used_s)
VALUES (?, ?, ?, ?, ?, ?)
"""
_TOTAL: Final = "SELECT COUNT(*), COALESCE(SUM(num_bytes), 0) FROM answers"
_OF_TENANT: Final = " WHERE ? IS NULL OR tenant = ?"
_ROW_BYTES: Final = 256  # beside the data, about


class SqliteStore:
    """`clock` is time.time(). Opens the file when it is first asked."""

    def __init__(self, path: Path, max_bytes: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    async def get(self, key: Key) -> bytes | None:
        now_s = self._clock()

        def read(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(_GET, (now_s, *key, now_s)).fetchone()
            return None if row is None else row[0]

        return await self._run(read)

    async def put(self, key: Key, data: bytes, ttl_s: float) -> None:
        now_s = self._clock()
        num_bytes = len(data) + _ROW_BYTES
        if num_bytes > self._max_bytes:
            return

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM answers WHERE expires_s <= ?", (now_s,))
            connection.execute(_PUT, (*key, data, num_bytes, now_s + ttl_s, now_s))
            self._make_room(connection)

        await self._run(write)

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        def drop(connection: sqlite3.Connection) -> Amount:
            found = connection.execute(_TOTAL + _OF_TENANT, (tenant, tenant)).fetchone()
            if not dry_run:
                statement = "DELETE FROM answers" + _OF_TENANT  # nosec B608 # both are constants
                connection.execute(statement, (tenant, tenant))
            return Amount(*found)

        return await self._run(drop)

    async def amount(self) -> Amount:
        return await self._run(lambda connection: Amount(*connection.execute(_TOTAL).fetchone()))

    async def purge(self) -> int:
        now_s = self._clock()

        def drop(connection: sqlite3.Connection) -> int:
            return connection.execute("DELETE FROM answers WHERE expires_s <= ?", (now_s,)).rowcount

        return await self._run(drop)

    async def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _make_room(self, connection: sqlite3.Connection) -> None:
        _, num_bytes = connection.execute(_TOTAL).fetchone()
        if num_bytes <= self._max_bytes:
            return
        oldest = connection.execute(
            "SELECT tenant, digest, num_bytes FROM answers ORDER BY used_s"
        ).fetchall()
        for tenant, digest, of_row in oldest:
            if num_bytes <= self._max_bytes:
                return
            connection.execute(
                "DELETE FROM answers WHERE tenant = ? AND digest = ?", (tenant, digest)
            )
            num_bytes -= of_row

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _open(self._path)
                with self._connection:
                    return work(self._connection)
            except sqlite3.Error as error:
                raise StoreFailed(f"{self._path}: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    """Begins a file anew that is no database (any more)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return _connect(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            path.unlink()
            return _connect(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)  # answers are for this user's eyes
    connection = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
