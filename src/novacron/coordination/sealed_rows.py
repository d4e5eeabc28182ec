"""SealedRows: the record of streams, with requests and outputs that only holders of a key can read.

What a stream is of (its id, its tenant, its model, its reservation) stays as it is: the database
has to find it by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from novacron.coordination.lease import Fence
from novacron.coordination.shared_state import StreamRows
from novacron.coordination.streams import (
    Chunk,
    Claim,
    StreamEnd,
    StreamRow,
    TakenStream,
)
from novacron.errors import DatabaseUnavailable, NotReady


class Seal(Protocol):
    """Bytes that are for something: encryption.sealing.Sealing."""

    def seal(self, data: bytes, purpose: bytes) -> bytes:
        """Raises OSError if there is no key."""
        ...

    def open(self, sealed: bytes, purpose: bytes) -> bytes | None:
        """None if they are not what was sealed for this. Raises LookupError for an unknown key, and
        OSError if nobody can say."""
        ...


class SealedRows:
    """Implements StreamRows over one that keeps bytes."""

    def __init__(self, rows: StreamRows, seal: Seal) -> None:
        self._rows = rows
        self._seal = seal

    def seal_request(self, key: str, request: bytes) -> bytes:
        """For StreamStart, which goes on record with its reservation. Raises OSError."""
        return self._seal.seal(request, _request(key))

    def find(self, key: str) -> StreamRow | None:
        return self._rows.find(key)

    def append(self, owner: str, chunks: Sequence[Chunk], ends: Sequence[StreamEnd]) -> set[str]:
        try:
            sealed = [self._sealed(chunk) for chunk in chunks]
        except OSError as error:
            raise DatabaseUnavailable(f"There is no key to encrypt streams with: {error}") from None
        return self._rows.append(owner, sealed, ends)

    def claim(self, key: str, claim: Claim) -> TakenStream | None:
        """Raises NotReady for a stream that cannot be opened, which is given back."""
        taken = self._rows.claim(key, claim)
        if taken is None:
            return None
        try:
            return self._opened(taken)
        except (LookupError, OSError, ValueError) as error:
            end = StreamEnd(key, taken.epoch, None, is_released=True)
            self._rows.append(claim.claimant, [], [end])
            raise NotReady(
                "This server cannot decrypt the stream: all servers with one database need the "
                f"same encryption_key ({error})."
            ) from None

    def orphans(self, fence: Fence) -> list[str]:
        return self._rows.orphans(fence)

    def forget(self, fence: Fence, keep_ms: int) -> int:
        return self._rows.forget(fence, keep_ms)

    def _sealed(self, chunk: Chunk) -> Chunk:
        data = self._seal.seal(chunk.data, _chunk(chunk.key, chunk.number))
        return msgspec.structs.replace(chunk, data=data)

    def _opened(self, taken: TakenStream) -> TakenStream:
        start = taken.start
        request = self._open(start.request, _request(start.key))
        chunks = tuple(
            self._open(data, _chunk(start.key, number)) for number, data in enumerate(taken.chunks)
        )
        start = msgspec.structs.replace(start, request=request)
        return msgspec.structs.replace(taken, start=start, chunks=chunks)

    def _open(self, sealed: bytes, purpose: bytes) -> bytes:
        data = self._seal.open(sealed, purpose)
        if data is None:
            raise ValueError("it was written without one, or changed")
        return data


def _request(key: str) -> bytes:
    return b"stream request\0" + key.encode()


def _chunk(key: str, number: int) -> bytes:
    """A chunk is nothing in another place of its stream."""
    return b"stream chunk\0" + number.to_bytes(8, "little") + key.encode()
