"""A socket of one lane of a tensor link: encrypted, and watched by ZeroMQ's own heartbeats, which
go on while Python computes."""

from __future__ import annotations

from typing import Final

import zmq

from novacron.parallel.messages.tensor_message import (
    Bytes,
    MessageError,
    Priority,
    TensorHeader,
    open_message,
)

_BEATS: Final = 5  # in the time after which the other end counts as gone
_LONGEST_TTL_MS: Final = 6_553_500  # that the protocol has room for
_DATA_PATIENCE: Final = 12  # a large tensor on a slow link is no silence

Parts = list[zmq.Frame]


def keep_alive(socket: zmq.Socket[bytes], timeout_s: float, priority: Priority) -> None:
    """Have the connection end after so long a silence, at both ends. The lane of large tensors has
    more patience: a beat waits behind what is being sent."""
    patience = _DATA_PATIENCE if priority is Priority.DATA else 1
    timeout_ms = min(_LONGEST_TTL_MS, int(timeout_s * 1000) * patience)
    socket.heartbeat_ivl = max(1, timeout_ms // _BEATS)
    socket.heartbeat_timeout = timeout_ms
    socket.heartbeat_ttl = timeout_ms


def read_parts(parts: Parts) -> tuple[TensorHeader, Bytes]:
    """Raises MessageError."""
    if len(parts) != 2:
        raise MessageError(f"it has {len(parts)} parts instead of 2")
    head, payload = (part.buffer for part in parts)
    return open_message(head, payload), payload
