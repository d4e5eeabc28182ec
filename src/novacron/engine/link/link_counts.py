"""LinkCounts: what passes over one link, and how long its way takes."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from novacron.records.parallel_stats import LinkStats

_INFO_BYTES: Final = 104
_TOTAL_RETRANS: Final = 100  # offset in struct tcp_info (linux/tcp.h)


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
            self._num_resent = max(self._num_resent, _resent_segments(descriptor))

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


def _resent_segments(descriptor: int) -> int:
    """0 if the socket is closed by now: it is ZeroMQ's, and only looked at."""
    with contextlib.suppress(OSError):
        borrowed = socket.socket(fileno=descriptor)
        try:
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        finally:
            borrowed.detach()
        if len(info) == _INFO_BYTES:
            [found] = struct.unpack_from("=I", info, _TOTAL_RETRANS)
            return int(found)
    return 0
