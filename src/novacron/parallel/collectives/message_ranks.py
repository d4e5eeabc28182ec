"""MessageRanks: ranks that reach each other by tensor messages. Implements PointToPoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from torch import Tensor

from novacron.parallel.messages.activation_codec import pack, unpack_into
from novacron.parallel.messages.links import LinkLost, Received
from novacron.parallel.messages.tensor_message import Bytes, Kind, MessageError, TensorHeader
from novacron.parallel.traffic import RankTraffic

Send = Callable[[TensorHeader, Bytes], None]
Receive = Callable[[float], Received | None]

_LOOK_S: Final = 0.25


class MessageRanks:
    """`send_to` has a way to each other rank, and `receive_from` gives what arrives next from it
    within so many seconds. `patience_s`: how long another rank may be late."""

    def __init__(
        self,
        rank: int,
        send_to: Mapping[int, Send],
        receive_from: Mapping[int, Receive],
        *,
        patience_s: float,
        traffic: RankTraffic | None = None,
    ) -> None:
        assert send_to.keys() == receive_from.keys()
        self.rank, self.size = rank, 1 + len(send_to)
        self._send_to, self._receive_from, self._patience_s = send_to, receive_from, patience_s
        self._traffic = traffic or RankTraffic()

    def send(self, to: int, x: Tensor) -> None:
        packed = pack(x)
        header = TensorHeader(kind=Kind.PARTIAL, dtype=packed.dtype, shape=packed.shape)
        try:
            self._send_to[to](header, packed.payload)
        except LinkLost as error:
            raise ConnectionError(f"rank {to} cannot be reached: {error}") from None
        self._traffic.see_sent(len(packed.payload))

    def receive(self, source: int, out: Tensor) -> None:
        began_ns = time.monotonic_ns()
        received = self._next_of(source)
        self._traffic.see_wait(time.monotonic_ns() - began_ns)
        try:
            unpack_into(received.header, received.payload, out)
        except MessageError as error:
            raise ConnectionError(f"what rank {source} sent is of no use: {error}") from None

    def _next_of(self, source: int) -> Received:
        waited_s = 0.0
        while waited_s < self._patience_s:
            try:
                received = self._receive_from[source](_LOOK_S)
            except LinkLost as error:
                raise ConnectionError(f"rank {source} cannot be reached: {error}") from None
            if received is not None:
                return received
            waited_s += _LOOK_S
        raise ConnectionError(f"rank {source} has sent nothing for {waited_s:.0f} s")
