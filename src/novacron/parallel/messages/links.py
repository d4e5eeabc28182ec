"""What ranks on different hosts are connected by, as the rest of NovaCron sees it.

engine/link/tensor_socket.py is the network; novacron.testing has one without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from novacron.parallel.messages.tensor_message import Bytes, TensorHeader
from novacron.records.parallel_stats import LinkStats


class Received(NamedTuple):
    """`reply_to`: the address of whoever sent it, where there are several, and their `key`."""

    header: TensorHeader
    payload: Bytes
    reply_to: bytes = b""
    key: str = ""


class LinkLost(Exception):
    """The other end is gone, cut off, or not what it should be: why, as half a sentence.
    `is_final`: trying again does not help."""

    is_final = False


class TensorLink(Protocol):
    """To one rank on another host. Control messages have a lane of their own, so that none waits
    behind a large tensor; those of a lane keep their order. For one thread."""

    @property
    def place(self) -> str:
        """For people: HOST:PORT."""
        ...

    def send(self, header: TensorHeader, payload: Bytes) -> None:
        """Never waits for the other end. Raises LinkLost if it is known to be gone."""
        ...

    def receive(self, timeout_s: float) -> Received | None:
        """The next message, those of control first; None if none has come by then. Raises LinkLost,
        also for what cannot be read or is out of order."""
        ...

    def stats(self) -> LinkStats:
        """What has passed over it so far, and how long its way takes."""
        ...

    def close(self) -> None:
        """What was sent gets a moment to leave. Harmless when called again."""
        ...


class TensorListener(Protocol):
    """Where others find this rank. For one thread."""

    def admit(self, key: str) -> None:
        """Answer this public key, too."""
        ...

    def end_with(self, address: bytes) -> None:
        """From now on this rank ends as soon as its connection with that one does."""
        ...

    def reply(self, address: bytes, header: TensorHeader, payload: Bytes) -> None:
        """In the epoch in which it was spoken to. Raises LinkLost if whoever that was is gone."""
        ...

    def receive(self, timeout_s: float) -> Received | None:
        """As TensorLink, from any of those who are allowed to speak, in whatever epoch. What cannot
        be read is logged, and dropped."""
        ...


OnLoss = Callable[[str], None]  # gets a reason, as half a sentence, from any thread
OpenLink = Callable[[str, int, int, int, OnLoss], TensorLink]
"""To an address (KEY@HOST:PORT), in an epoch, from one rank to another."""
