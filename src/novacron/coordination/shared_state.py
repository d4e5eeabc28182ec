"""What coordinators share, as they see it. accounts/database/shared_state.py has it in a database.

All methods block, and raise DatabaseUnavailable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from novacron.coordination.lease import Fence
from novacron.coordination.member import Member, Picture
from novacron.coordination.streams import Chunk, Claim, StreamEnd, StreamRow, TakenStream


class Registry(Protocol):
    """Who is there, and who has which duty."""

    def beat(self, member: Member, duties: Sequence[str], ttl_ms: int) -> Picture:
        """Say that `member` lives for another `ttl_ms`, and take or keep those of `duties` that
        nobody else has."""
        ...

    def leave(self, member_id: str) -> None:
        """It ends: its duties are free at once."""
        ...


class StreamRows(Protocol):
    """The record of streams that outlives their coordinators."""

    def find(self, key: str) -> StreamRow | None: ...

    def append(self, owner: str, chunks: Sequence[Chunk], ends: Sequence[StreamEnd]) -> set[str]:
        """All of it or nothing. The keys of streams that are not `owner`'s any more, of which
        nothing was written."""
        ...

    def claim(self, key: str, claim: Claim) -> TakenStream | None:
        """Make a stream the claimant's; None, if it has changed hands since it was looked at."""
        ...

    def orphans(self, fence: Fence) -> list[str]:
        """Keys of streams that run in the background, and whose owner has ended. Raises
        LeaseLost."""
        ...

    def forget(self, fence: Fence, keep_ms: int) -> int:
        """Delete streams that have ended, or that nobody has asked for since their owner ended,
        `keep_ms` ago; how many. Raises LeaseLost."""
        ...


class SharedState(Registry, StreamRows, Protocol):
    """All of it."""
