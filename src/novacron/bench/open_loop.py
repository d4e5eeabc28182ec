"""Requests sent at given moments, whatever becomes of those before: an open loop.

Blocking sockets of one thread, told by epoll; nothing is parsed beyond where an answer ends. So the
client costs little beside a server on the same two cores, and sends on time: event loops wake up
by the millisecond, which would be a part of every time below one.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from novacron.errors import RequestFailed

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_READ_BYTES: Final = 65536
_LATE_S: Final = 30.0  # without any answer


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    place: int = 0  # of the request that it waits for
    received: bytearray = field(default_factory=bytearray)
    size: int = 0  # of the whole answer, once its head is there


def drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    due_s: Sequence[float],
    *,
    most_at_once: int = 1000,
) -> list[float]:
    """Send requests[i % len(requests)] at due_s[i] seconds from now, in order; wait for all. For
    each, seconds from when it was due to the end of its answer.

    Each is one that a server answers with a Content-Length, and keeps the connection. A request
    takes a connection that is idle, or a new one, up to `most_at_once`: far fewer than are due make
    a closed loop. Raises RequestFailed for a status other than 200, and when no answer comes.
    """
    times_s = [0.0] * len(due_s)
    num_due = len(due_s)
    idle: list[_Connection] = []
    busy: dict[int, _Connection] = {}
    poll = select.epoll()
    started_s = heard_s = time.perf_counter()
    num_sent = 0
    try:
        while num_sent < num_due or busy:
            now_s = time.perf_counter()
            has_room = len(busy) < most_at_once
            while has_room and num_sent < num_due and started_s + due_s[num_sent] <= now_s:
                one = idle.pop() if idle else _connect(address, poll)
                one.place = num_sent
                busy[one.socket.fileno()] = one
                one.socket.sendall(requests[num_sent % len(requests)])
                num_sent += 1
                now_s = time.perf_counter()
                has_room = len(busy) < most_at_once
            left_s = _LATE_S
            if has_room and num_sent < num_due:
                left_s = started_s + due_s[num_sent] - now_s
            select.select((poll,), (), (), max(0.0, left_s))  # to the microsecond; epoll: to the ms
            now_s = time.perf_counter()
            for descriptor, _ in poll.poll(0):
                heard_s = now_s
                one = busy[descriptor]
                if _has_ended(one):
                    times_s[one.place] = now_s - started_s - due_s[one.place]
                    idle.append(busy.pop(descriptor))
            if busy and now_s - heard_s > _LATE_S and now_s - started_s > _LATE_S:
                raise RequestFailed(f"No answer came for {_LATE_S:g} s.")
        return times_s
    finally:
        poll.close()
        for one in (*idle, *busy.values()):
            one.socket.close()


def post(host: str, path: str, headers: str, body: bytes) -> bytes:
    """A request as it goes over the line. `headers` are lines with their ends."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _connect(address: tuple[str, int], poll: select.epoll) -> _Connection:
    try:
        made = socket.create_connection(address, timeout=_LATE_S)
    except OSError as error:
        raise RequestFailed(f"No server answers at {address[0]}:{address[1]}: {error}.") from error
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    poll.register(made.fileno(), select.EPOLLIN)
    return _Connection(made)


def _has_ended(one: _Connection) -> bool:
    """Read what is there. Raises RequestFailed."""
    data = one.socket.recv(_READ_BYTES)
    if not data:
        raise RequestFailed("The server closed a connection that it was to keep.")
    one.received += data
    if not one.size:
        end = one.received.find(_END_OF_HEAD)
        if end < 0:
            return False
        head = bytes(one.received[:end]).lower()
        if b" 200 " not in head[:16] or _LENGTH not in head:
            raise RequestFailed(f"A request failed: {bytes(one.received[:500])!r}")
        length = head.partition(_LENGTH)[2].partition(b"\r\n")[0]
        one.size = end + len(_END_OF_HEAD) + int(length)
    if len(one.received) < one.size:
        return False
    one.received.clear()
    one.size = 0
    return True
