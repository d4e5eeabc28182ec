"""LinkCounts: what passes over one link, and how long its way takes."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from novacron.records.parallel_stats import LinkStats

_INFO_BYTES: Final = 104
_RTT: Final = 68  # offsets in struct tcp_info (linux/tcp.h): smoothed, in microseconds
_TOTAL_RETRANS: Final = 100


class LinkCounts:
    """Of one connection to `place`."""

    def __init__(self) -> None:
        self.place = ""
        self._num_sent = self._num_received = self._sent_bytes = self._received_bytes = 0
        self._num_dropped = self._num_resent = 0
        self._round_trip_s: float | None = None

    def see_sent(self, num_bytes: int) -> None:
        self._num_sent += 1
        self._sent_bytes += num_bytes

    def see_received(self, num_bytes: int) -> None:
        self._num_received += 1
        self._received_bytes += num_bytes

    def see_dropped(self) -> None:
        self._num_dropped += 1

    def see_echo(self, sent_s: float, held_s: float, now_s: float) -> None:
        """Of what was sent at `sent_s`, an echo has come, which the other end kept for `held_s`."""
        if sent_s:
            self._round_trip_s = max(0.0, now_s - sent_s - held_s)

    def see_resent(self, descriptor: int | None) -> None:
        """Ask the system, of the connection's socket."""
        if descriptor is not None:
            self._num_resent = max(self._num_resent, _tcp_info(descriptor).num_resent)

    def ask_system(self, descriptors: Iterable[int]) -> None:
        """Of a link that is these connections: segments of all of them, and the shortest way."""
        found = [_tcp_info(one) for one in descriptors]
        self._num_resent = max(self._num_resent, sum(one.num_resent for one in found))
        measured = [one.round_trip_s for one in found if one.round_trip_s > 0]
        self._round_trip_s = min(measured, default=self._round_trip_s)

    def stats(self) -> LinkStats:
        return LinkStats(
            place=self.place,
            round_trip_s=self._round_trip_s,
            num_sent=self._num_sent,
            num_received=self._num_received,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            num_resent=self._num_resent,
            num_dropped=self._num_dropped,
        )


class _TcpInfo(NamedTuple):
    num_resent: int = 0
    round_trip_s: float = 0.0


def _tcp_info(descriptor: int) -> _TcpInfo:
    """Zeros if the socket is closed by now: it is ZeroMQ's, and only looked at."""
    with contextlib.suppress(OSError):
        borrowed = socket.socket(fileno=descriptor)
        try:
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        finally:
            borrowed.detach()
        if len(info) == _INFO_BYTES:
            [num_resent] = struct.unpack_from("=I", info, _TOTAL_RETRANS)
            [round_trip_us] = struct.unpack_from("=I", info, _RTT)
            return _TcpInfo(num_resent, round_trip_us / 1e6)
    return _TcpInfo()
