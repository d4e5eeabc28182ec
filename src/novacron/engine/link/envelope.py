"""Envelopes of a link: which epoch a message belongs to, and that none before it is missing. Pure.

A link is only ever whole: a message of another epoch is not for us, and after a gap (a connection
broke, and what it had taken is gone) nothing that follows can be trusted. Neither is repaired.
Whoever notices gives the link up; what ran over it goes on elsewhere, from the tokens it has.

    version  epoch  number  channel | body
    2 bytes  8      8       1       |
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from novacron.records.wire import WIRE_VERSION

NO_EPOCH: Final = 0  # of messages before a Welcome

_HEADER: Final = struct.Struct("<HQQB")


class Channel(IntEnum):
    LINK = 0  # wire.ToHost, wire.FromHost
    ENGINE = 1  # wire.ToEngine, wire.FromEngine


class Envelope(NamedTuple):
    epoch: int
    number: int
    channel: Channel
    body: memoryview


class LinkBroken(Exception):
    """The link is over; the message says why, for a log line."""


class OtherVersion(LinkBroken):
    """The other end speaks another version of the protocol, or something else entirely."""


def open_envelope(frame: memoryview) -> Envelope:
    """Raises OtherVersion."""
    if len(frame) < _HEADER.size:
        raise OtherVersion("the other end does not speak the protocol of NovaCron")
    version, epoch, number, channel = _HEADER.unpack_from(frame)
    if version != WIRE_VERSION:
        raise OtherVersion(
            f"the other end speaks version {version} of the protocol and this one {WIRE_VERSION}: "
            "install the same NovaCron on both hosts"
        )
    if channel not in (Channel.LINK, Channel.ENGINE):
        raise OtherVersion(f"the other end uses a channel {channel}, which is not known here")
    return Envelope(epoch, number, Channel(channel), frame[_HEADER.size :])


class Outgoing:
    """Numbers what is sent in one epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._number = 0

    def seal(self, channel: Channel, body: bytes | memoryview) -> bytes:
        header = _HEADER.pack(WIRE_VERSION, self._epoch, self._number, channel)
        self._number += 1
        return b"".join((header, body))


class Incoming:
    """Checks what arrives in one epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._number = 0

    def skip(self) -> None:
        """The next message has been taken already."""
        self._number += 1

    def take(self, envelope: Envelope) -> bool:
        """Whether it is the next message of the epoch; False if it is one of another epoch, to be
        dropped. Raises LinkBroken if messages are missing before it."""
        if envelope.epoch != self._epoch:
            return False
        if envelope.number != self._number:
            raise LinkBroken(
                f"message {envelope.number} arrived where {self._number} was due: the network has "
                "lost what was sent in between"
            )
        self._number += 1
        return True
