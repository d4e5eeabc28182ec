"""One end of the connection between rank 0 and another rank: whole messages, in order.

A message is eight bytes of length and its msgpack. A pair of stream sockets carries it: who reads
sees at once when the other process is gone. Descriptors may go with a message.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

_LENGTH_BYTES = 8
_LOOK_S = 0.1
_MOST_DESCRIPTORS: Final = 64  # with one message

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class RankConnection(Generic[Sent, Received]):
    """`received` is the type of what the other end sends."""

    def __init__(self, own: socket.socket, received: object) -> None:
        self._socket = own
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(received)
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Sent, descriptors: Sequence[int] = ()) -> None:
        """The other process gets copies of these descriptors. Raises OSError if it is gone."""
        data = self._encoder.encode(message)
        data = len(data).to_bytes(_LENGTH_BYTES, "little") + data
        if descriptors:
            data = data[socket.send_fds(self._socket, [data], descriptors) :]
        self._socket.sendall(data)

    def take_descriptors(self) -> list[int]:
        """What has come with messages since the last call. Whoever takes them closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def receive(self, patience_s: float | None = None) -> Received:
        """Waits for the next message. Raises EOFError if none can come any more, and TimeoutError
        if none has begun to come in `patience_s` that this process was awake for."""
        if patience_s is not None:
            self._wait(patience_s)
        length = int.from_bytes(self._read(_LENGTH_BYTES), "little")
        message: Received = self._decoder.decode(self._read(length))
        return message

    def _wait(self, patience_s: float) -> None:
        """In short sleeps: of one that took longer, because all was stopped, no more counts."""
        arrived = select.poll()
        arrived.register(self._socket, select.POLLIN)
        left_s = patience_s
        while not arrived.poll(min(_LOOK_S, left_s) * 1000):
            left_s -= _LOOK_S
            if left_s <= 0:
                raise TimeoutError

    def close(self) -> None:
        self._socket.close()

    def _read(self, num_bytes: int) -> bytes:
        data = b""
        while len(data) < num_bytes:
            try:
                part, found, *_ = socket.recv_fds(
                    self._socket,
                    num_bytes - len(data),
                    _MOST_DESCRIPTORS,
                    socket.MSG_CMSG_CLOEXEC,
                )
                self._descriptors += found
            except ConnectionError:
                part = b""
            if not part:
                raise EOFError
            data += part
        return data
