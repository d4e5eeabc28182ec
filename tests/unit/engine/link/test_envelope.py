"""Envelopes: what was sealed is opened as it was, in order and in its epoch, or not at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.link.envelope import (
    Channel,
    Incoming,
    LinkBroken,
    OtherVersion,
    Outgoing,
    open_envelope,
)
from novacron.records.wire import WIRE_VERSION

EPOCHS = st.integers(0, 2**64 - 1)


@given(EPOCHS, st.lists(st.tuples(st.sampled_from(Channel), st.binary(max_size=40)), max_size=20))
def test_what_is_sent_arrives(epoch: int, sent: list[tuple[Channel, bytes]]) -> None:
    outgoing, incoming = Outgoing(epoch), Incoming(epoch)
    for channel, body in sent:
        envelope = open_envelope(memoryview(outgoing.seal(channel, body)))
        assert incoming.take(envelope)
        assert (envelope.channel, bytes(envelope.body)) == (channel, body)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_after_a_gap_nothing_is_taken(arrives: list[bool]) -> None:
    """Of messages of which some are lost, exactly those before the first loss are taken."""
    outgoing, incoming = Outgoing(7), Incoming(7)
    taken = 0
    frames = [outgoing.seal(Channel.ENGINE, b"") for _ in arrives]
    try:
        for frame, does_arrive in zip(frames, arrives, strict=True):
            if does_arrive:
                taken += incoming.take(open_envelope(memoryview(frame)))
    except LinkBroken:
        assert False in arrives
    assert taken == (arrives.index(False) if False in arrives else len(arrives))


@given(EPOCHS, EPOCHS, st.integers(0, 5))
def test_other_epochs_are_dropped_and_disturb_nothing(ours: int, other: int, num: int) -> None:
    incoming, stale, outgoing = Incoming(ours), Outgoing(other), Outgoing(ours)
    for _ in range(num):
        envelope = open_envelope(memoryview(stale.seal(Channel.ENGINE, b"old")))
        assert incoming.take(envelope) is (other == ours)
    if other != ours:
        assert incoming.take(open_envelope(memoryview(outgoing.seal(Channel.ENGINE, b"new"))))


def test_a_message_that_comes_twice_breaks_the_link() -> None:
    incoming = Incoming(1)
    envelope = open_envelope(memoryview(Outgoing(1).seal(Channel.LINK, b"")))
    assert incoming.take(envelope)
    with pytest.raises(LinkBroken):
        incoming.take(envelope)


@given(st.binary(max_size=60))
def test_whatever_else_arrives_is_refused_or_an_envelope(frame: bytes) -> None:
    try:
        envelope = open_envelope(memoryview(frame))
    except OtherVersion:
        return
    assert frame[:2] == struct.pack("<H", WIRE_VERSION)
    assert envelope.channel in Channel


def test_another_version_is_named() -> None:
    frame = bytearray(Outgoing(1).seal(Channel.LINK, b""))
    struct.pack_into("<H", frame, 0, WIRE_VERSION + 1)
    with pytest.raises(OtherVersion, match=f"version {WIRE_VERSION + 1} .* {WIRE_VERSION}"):
        open_envelope(memoryview(bytes(frame)))
