"""Hidden states on their way from a stage to the next one, on another host.

Shapes: K places, T tokens of the largest step, D hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from novacron.executor.hosts.orders import forward_header
from novacron.parallel.handover import HandoverLost
from novacron.parallel.messages.activation_codec import pack, unpack_into
from novacron.parallel.messages.links import LinkLost, Received
from novacron.parallel.messages.tensor_message import (
    Bytes,
    Compression,
    Kind,
    MessageError,
    TensorHeader,
)
from novacron.parallel.traffic import RankTraffic

Send = Callable[[TensorHeader, Bytes], None]


class HopEntry:
    """Implements Entry: what `receive` gives are the steps, in their order. It waits, and raises
    LinkLost. `traffic` counts how long."""

    def __init__(
        self, ring_KTD: Tensor, receive: Callable[[], Received], traffic: RankTraffic
    ) -> None:
        self.ring_KTD, self._traffic = ring_KTD, traffic
        self._receive = receive
        self._next_step = 0
        self.error = 0.0  # of the step taken last: what compression cost it on all its way so far

    def take(self, place: int, num_tokens: int) -> Tensor:
        began_ns = time.monotonic_ns()
        try:
            header, payload, *_ = self._receive()
            self._traffic.see_wait(time.monotonic_ns() - began_ns)
            if header.kind is not Kind.FORWARD or header.step != self._next_step:
                raise MessageError(f"step {header.step} came where {self._next_step} was due")
            out_TD = self.ring_KTD[place, :num_tokens]
            self.error = unpack_into(header, payload, out_TD)
        except (LinkLost, MessageError) as error:
            raise HandoverLost(str(error)) from None
        self._next_step += 1
        return out_TD


class HopExit:
    """Implements Exit. `layer` is the first one of the next stage; `deadline_ns` tells until when a
    step that leaves now is of use, `error` what compression has cost it so far. `traffic` counts
    bytes."""

    def __init__(
        self,
        send: Send,
        layer: int,
        compression: Compression,
        deadline_ns: Callable[[], int],
        traffic: RankTraffic,
        error: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._send, self._layer, self._compression = send, layer, compression
        self._deadline_ns, self._error = deadline_ns, error
        self._traffic = traffic
        self._next_step = 0

    def hand_over(self, place: int, x_TD: Tensor) -> None:
        packed = pack(x_TD, self._compression, self._error())
        header = forward_header(packed, self._next_step, self._layer, self._deadline_ns())
        self._traffic.see_sent(len(packed.payload))
        try:
            self._send(header, packed.payload)
        except LinkLost as error:
            raise HandoverLost(str(error)) from None
        self._next_step += 1
