"""What coordinators share, in the database of accounts: a SharedState."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from novacron.accounts.database import lease_rows, member_rows, stream_rows
from novacron.accounts.database.clock import database_ms
from novacron.accounts.database.connection import Database
from novacron.coordination.lease import Fence
from novacron.coordination.member import Member, Picture
from novacron.coordination.streams import Chunk, Claim, StreamEnd, StreamRow, TakenStream


class DatabaseState:
    """Implements SharedState. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, member: Member, duties: Sequence[str], ttl_ms: int) -> Picture:
        with self._database.writing() as connection:
            now_ms = database_ms(connection)
            started_at_ms = member.started_at_ms or now_ms
            member_rows.write(
                connection,
                msgspec.structs.replace(
                    member, started_at_ms=started_at_ms, alive_until_ms=now_ms + ttl_ms
                ),
            )
            lease_rows.take(connection, duties, member.id, now_ms, ttl_ms)
            return Picture(
                now_ms=now_ms,
                members=member_rows.read(connection),
                leases=lease_rows.read(connection),
            )

    def leave(self, member_id: str) -> None:
        with self._database.writing() as connection:
            lease_rows.release_all(connection, member_id)
            member_rows.remove(connection, member_id)

    def find(self, key: str) -> StreamRow | None:
        with self._database.reading() as connection:
            return stream_rows.find(connection, key)

    def append(self, owner: str, chunks: Sequence[Chunk], ends: Sequence[StreamEnd]) -> set[str]:
        with self._database.writing() as connection:
            return stream_rows.append(connection, owner, chunks, ends, database_ms(connection))

    def claim(self, key: str, claim: Claim) -> TakenStream | None:
        with self._database.writing() as connection:
            return stream_rows.claim(connection, key, claim, database_ms(connection))

    def orphans(self, fence: Fence) -> list[str]:
        with self._database.writing() as connection:
            lease_rows.check(connection, fence)
            return stream_rows.orphans(connection, database_ms(connection))

    def forget(self, fence: Fence, keep_ms: int) -> int:
        with self._database.writing() as connection:
            lease_rows.check(connection, fence)
            now_ms = database_ms(connection)
            member_rows.forget(connection, now_ms)
            return stream_rows.forget(connection, now_ms, keep_ms)
