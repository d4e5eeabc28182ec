"""Order: whether a message is the next one of its lane, epoch and time. Pure.

A lane is one direction of one connection. A group of ranks that has lost a message is over, as a
link is that did (ADR 39): nothing is repaired, the group begins anew with the next epoch.
"""

from __future__ import annotations

from dataclasses import replace

from novacron.parallel.messages.tensor_message import Bytes, TensorHeader, seal


class LaneBroken(Exception):
    """The lane is over: why, as half a sentence."""


class OutgoingLane:
    """Numbers what is sent in one epoch."""

    def __init__(self, epoch: int, source: int, target: int) -> None:
        self._epoch, self._source, self._target = epoch, source, target
        self._sequence = 0

    def seal(self, header: TensorHeader, payload: Bytes, now_ns: int) -> bytes:
        """The bytes that go before the payload, as the next message of the lane."""
        sealed = seal(
            replace(
                header,
                source=self._source,
                target=self._target,
                epoch=self._epoch,
                sequence=self._sequence,
                sent_ns=max(0, now_ns),
            ),
            payload,
        )
        self._sequence += 1
        return sealed


class IncomingLane:
    """Checks what arrives in one epoch, from the message numbered `first` on."""

    def __init__(self, epoch: int, source: int, target: int, first: int = 0) -> None:
        self._epoch, self._source, self._target = epoch, source, target
        self._sequence = first

    def take(self, header: TensorHeader, now_ns: int) -> bool:
        """Whether it is the next message; False for one of another epoch, which is dropped. Raises
        LaneBroken if messages are missing before it, if it is for or from somebody else, or if it
        comes too late to be of use."""
        if header.epoch != self._epoch:
            return False
        if (header.source, header.target) != (self._source, self._target):
            raise LaneBroken(
                f"a message from rank {header.source} to rank {header.target} came where those "
                f"from rank {self._source} to rank {self._target} do"
            )
        if header.sequence != self._sequence:
            raise LaneBroken(
                f"message {header.sequence} came where {self._sequence} was due: the network has "
                "lost what was sent in between"
            )
        if header.is_late(now_ns):
            late_s = (now_ns - header.deadline_ns) / 1e9
            raise LaneBroken(f"a message came {late_s:.1f} s after its deadline")
        self._sequence += 1
        return True
