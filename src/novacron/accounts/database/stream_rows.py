"""Streams on record, read and written within a transaction.

The row of a stream is locked by whoever writes to it, so a record has no part that was written
after it changed hands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, select, update

from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.tables import ledger, members, stream_chunks, streams
from novacron.accounts.posting import Entry
from novacron.coordination.streams import (
    RELEASED,
    Chunk,
    Claim,
    StreamEnd,
    StreamRow,
    StreamStart,
    StreamState,
    TakenStream,
)

_AT_ONCE: Final = 500
_FIRST_EPOCH: Final = 1
_START: Final = StreamStart.__struct_fields__
_ROW: Final = StreamRow.__struct_fields__
_OURS: Final = (
    update(streams)
    .where(streams.c.key.in_(bindparam("keys", expanding=True)), streams.c.owner == bindparam("me"))
    .values(touched_at_ms=bindparam("now_ms"))
    .returning(streams.c.key, streams.c.epoch)
)
_LIVES: Final = select(members.c.id).where(members.c.id == streams.c.owner)


def taken_keys(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Those of `keys` that have a stream."""
    if not keys:
        return set()
    return set(connection.execute(select(streams.c.key).where(streams.c.key.in_(keys))).scalars())


def begin(
    connection: Connection, owner: str, starts: Iterable[tuple[StreamStart, bytes]], now_ms: int
) -> set[str]:
    """Each with its reservation. The keys of those that could not: somebody has begun one of the
    same key meanwhile."""
    rows = [
        {
            **msgspec.structs.asdict(start),
            "owner": owner,
            "epoch": _FIRST_EPOCH,
            "state": StreamState.RUNNING,
            "entry": entry,
            "error": "",
            "touched_at_ms": now_ms,
        }
        for start, entry in starts
    ]
    if not rows:
        return set()
    statement = insert_for(connection.dialect.name, streams).on_conflict_do_nothing()
    begun = connection.execute(statement.returning(streams.c.key), rows).scalars()  # one statement
    return {row["key"] for row in rows}.difference(begun)


def find(connection: Connection, key: str) -> StreamRow | None:
    row = connection.execute(
        select(*(streams.c[name] for name in _ROW)).where(streams.c.key == key)
    ).first()
    return None if row is None else _row(row._mapping)


def append(
    connection: Connection,
    owner: str,
    chunks: Sequence[Chunk],
    ends: Sequence[StreamEnd],
    now_ms: int,
) -> set[str]:
    """The keys of those that are not `owner`'s (any more). A chunk that is there already stays."""
    written: list[Chunk | StreamEnd] = [*chunks, *ends]
    epochs = {one.key: one.epoch for one in written}
    found = connection.execute(_OURS, {"keys": sorted(epochs), "me": owner, "now_ms": now_ms}).all()
    ours = {row.key for row in found if row.epoch == epochs[row.key]}
    rows = [
        {"key": chunk.key, "number": chunk.number, "data": chunk.data}
        for chunk in chunks
        if chunk.key in ours
    ]
    if rows:
        statement = insert_for(connection.dialect.name, stream_chunks).on_conflict_do_nothing()
        connection.execute(statement.returning(stream_chunks.c.number), rows)  # one statement
    for end in ends:
        if end.key in ours:
            _end(connection, end)
    return set(epochs) - ours


def claim(connection: Connection, key: str, claim: Claim, now_ms: int) -> TakenStream | None:
    """The stream, with its reservation, if it is still whose it was."""
    row = connection.execute(select(streams).where(streams.c.key == key).with_for_update()).first()
    if row is None or (row.owner, row.epoch) != (claim.owner, claim.epoch):
        return None
    epoch = row.epoch + 1
    connection.execute(
        update(streams)
        .where(streams.c.key == key)
        .values(owner=claim.claimant, epoch=epoch, touched_at_ms=now_ms)
    )
    entry = msgspec.msgpack.decode(row.entry, type=Entry)
    connection.execute(  # whoever had it before settles it no more
        update(ledger).where(ledger.c.id == entry.id).values(coordinator=claim.claimant)
    )
    chunks = connection.execute(
        select(stream_chunks.c.data)
        .where(stream_chunks.c.key == key)
        .order_by(stream_chunks.c.number)
    ).scalars()
    fields = row._mapping
    return TakenStream(
        start=StreamStart(**{name: fields[name] for name in _START}),
        epoch=epoch,
        state=StreamState(row.state),
        entry=row.entry,
        chunks=tuple(chunks),
        error=row.error,
    )


def orphans(connection: Connection, now_ms: int) -> list[str]:
    lives = _LIVES.where(members.c.alive_until_ms > now_ms).exists()
    statement = select(streams.c.key).where(
        streams.c.state == StreamState.RUNNING, streams.c.is_background, ~lives
    )
    return list(connection.execute(statement.limit(_AT_ONCE)).scalars())


def forget(connection: Connection, now_ms: int, keep_ms: int) -> int:
    lives = _LIVES.where(members.c.alive_until_ms > now_ms).exists()
    old = (
        select(streams.c.key)
        .where(
            streams.c.touched_at_ms < now_ms - keep_ms,
            (streams.c.state != StreamState.RUNNING) | ~lives,
        )
        .limit(_AT_ONCE)
        .with_for_update()
    )
    keys = list(connection.execute(old).scalars())
    _delete(connection, keys)
    return len(keys)


def _end(connection: Connection, end: StreamEnd) -> None:
    if end.state is None and not end.is_released:
        _delete(connection, [end.key])
        return
    values: dict[str, Any] = (
        {"owner": RELEASED} if end.state is None else {"state": end.state, "error": end.error}
    )
    connection.execute(update(streams).where(streams.c.key == end.key).values(values))


def _delete(connection: Connection, keys: list[str]) -> None:
    if keys:
        connection.execute(delete(stream_chunks).where(stream_chunks.c.key.in_(keys)))
        connection.execute(delete(streams).where(streams.c.key.in_(keys)))


def _row(fields: Mapping[Any, Any]) -> StreamRow:
    return StreamRow(
        **{**{name: fields[name] for name in _ROW}, "state": StreamState(fields["state"])}
    )
