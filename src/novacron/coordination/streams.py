"""Streams on record: what a coordinator needs to go on with one that another has begun. Pure.

The record of a stream is how it began (the request, its seed, its reservation) and the outputs it
has told, in chunks. What follows from these is not written down: tokens depend on nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from novacron.coordination.member import Picture

RELEASED: Final = ""  # the owner of a stream whose coordinator has given it up


class StreamState(StrEnum):
    RUNNING = "running"
    ENDED = "ended"  # as it should; with all that it told on record
    FAILED = "failed"


class StreamStart(msgspec.Struct, frozen=True, kw_only=True):
    """`model` tells engines that compute the same from others; `prompt` is a digest of the tokens
    of the prompts; `request` is for the gateway alone."""

    key: str
    is_background: bool
    model: str
    prompt: bytes
    request: bytes


class StreamRow(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a stream is, and which model computes it. The epoch grows with each change of hands."""

    key: str
    owner: str
    epoch: int
    state: StreamState
    model: str


class TakenStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream with all that is on record of it. `entry` is its reservation, encoded; `error` why
    it failed."""

    start: StreamStart
    epoch: int
    state: StreamState
    entry: bytes
    chunks: tuple[bytes, ...]
    error: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """Outputs of a stream, encoded; chunks of a stream are numbered from 0."""

    key: str
    epoch: int
    number: int
    data: bytes


class StreamEnd(msgspec.Struct, frozen=True):
    """How a stream ended; None: nobody wants it any more, and it is not kept. `is_released`: it has
    not, but its owner cannot go on with it."""

    key: str
    epoch: int
    state: StreamState | None
    error: str = ""
    is_released: bool = False


class Claim(msgspec.Struct, frozen=True):
    """That `claimant` wants a stream which was `owner`'s in `epoch`."""

    claimant: str
    owner: str
    epoch: int


def key_of(request_id: str, tenant: str) -> str:
    """Request ids have no slash, so no two streams have one key."""
    return f"{request_id}/{tenant}"


def may_claim(row: StreamRow, claimant: str, picture: Picture, *, was_unreachable: bool) -> bool:
    """Whether a stream needs another owner: its own has ended, or given it up, or does not answer
    `claimant`. The last may be a mistake, and does no harm: both would tell the same, and only the
    new owner's record counts."""
    if row.owner == claimant:
        return False
    return row.owner == RELEASED or was_unreachable or not picture.is_alive(row.owner)
