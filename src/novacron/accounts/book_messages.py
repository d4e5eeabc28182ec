"""What a server and the process that keeps its ledger say to each other: frames of msgpack.

A frame is its length (4 bytes, little-endian) and one message. The server begins with Open; then
each question has one answer, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from novacron.accounts.posting import Entry, Outcome, Posting
from novacron.errors import Forbidden, InvalidRequest, NovaCronError, QuotaExceeded, StreamIdInUse

LENGTH_BYTES: Final = 4


class Open(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Which database, and under which name entries are made in it. There is no answer."""

    url: str
    coordinator: str


class Post(msgspec.Struct, frozen=True, array_like=True, tag=True):
    postings: tuple[Posting, ...]


class Renew(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """See LedgerBook.renew."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An error that a call gets instead of an Entry."""

    kind: str
    message: str
    param: str | None = None
    retry_after_s: float = 0.0
    rate_limits: dict[str, str] = {}
    subject: str = ""


class Posted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    outcomes: tuple[Entry | Refusal | None, ...]


class Renewed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The database cannot be used; or, `is_bug`, what went wrong and where."""

    reason: str
    is_bug: bool


ToBook = Open | Post | Renew
FromBook = Posted | Renewed | Failed

_encoder: Final = msgspec.msgpack.Encoder()
_to_book: Final[msgspec.msgpack.Decoder[ToBook]] = msgspec.msgpack.Decoder(ToBook)
_from_book: Final[msgspec.msgpack.Decoder[FromBook]] = msgspec.msgpack.Decoder(FromBook)


def frame(message: ToBook | FromBook) -> bytes:
    data = _encoder.encode(message)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def read_question(data: bytes) -> ToBook:
    message: ToBook = _to_book.decode(data)
    return message


def read_answer(data: bytes) -> FromBook:
    message: FromBook = _from_book.decode(data)
    return message


def take_frames(received: bytearray) -> Iterator[bytes]:
    """The messages that are there whole, taken away from `received`."""
    while len(received) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "little")
        if len(received) < end:
            return
        data = bytes(received[LENGTH_BYTES:end])
        del received[:end]
        yield data


def told(outcome: Outcome) -> Entry | Refusal | None:
    """Raises TypeError for an error that is not one of a decision."""
    match outcome:
        case None | Entry():
            return outcome
        case QuotaExceeded(retry_after_s=wait_s, rate_limits=limits, subject=subject):
            return Refusal("quota", str(outcome), None, wait_s or 0.0, limits, subject)
        case Forbidden():
            return Refusal("forbidden", str(outcome))
        case StreamIdInUse(request_id=request_id):
            return Refusal("in use", request_id)
        case InvalidRequest(param=param):
            return Refusal("invalid", str(outcome), param)
    raise TypeError(f"{outcome!r} is no outcome of a reservation")


def outcome_of(told: Entry | Refusal | None) -> Outcome:
    if not isinstance(told, Refusal):
        return told
    error: NovaCronError
    match told.kind:
        case "quota":
            error = QuotaExceeded(told.message, told.retry_after_s, told.rate_limits, told.subject)
        case "forbidden":
            error = Forbidden(told.message)
        case "in use":
            error = StreamIdInUse(told.message)
        case _:
            error = InvalidRequest(told.message, told.param)
    return error
