"""RankLink: this rank's connection to one on another host, over CurveZMQ. Implements TensorLink.

Two connections, one for control and one for tensors. A thread reads what ZeroMQ tells of them: so a
loss is noticed at once, also while nobody waits for a message.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, in_z85
from novacron.engine.link.link_counts import LinkCounts
from novacron.engine.link.tensor_lanes import keep_alive, read_parts
from novacron.parallel.messages.links import LinkLost, OnLoss, Received
from novacron.parallel.messages.message_order import IncomingLane, LaneBroken, OutgoingLane
from novacron.parallel.messages.tensor_message import (
    HEADER_BYTES,
    Bytes,
    MessageError,
    OtherMessageVersion,
    Priority,
    TensorHeader,
)
from novacron.records.parallel_stats import LinkStats

_RETRY_MS: Final = 100
_LAST_RETRY_MS: Final = 2000
_HANDSHAKE_MS: Final = 5000
_LAST_WORDS_MS: Final = 250
_LOOK_S: Final = 0.25  # at whether the connection was lost, while waiting
_MOST_BROKEN_HANDSHAKES: Final = 5  # then it is not just being restarted

logger = logging.getLogger(__name__)


class Refused(LinkLost):
    """The other end does not allow our key, or is another NovaCron."""

    is_final = True


class RankLink:
    """From rank `source` to rank `target` in the group `epoch`. It is looked for as long as it
    takes; once it was reached and is lost, the link is over, and `on_loss` is told why, by another
    thread. `clock_offset_ns`: what to add to the clock here for that of the group."""

    def __init__(
        self,
        address: EngineAddress,
        keys: KeyPair,
        *,
        epoch: int,
        source: int,
        target: int,
        timeout_s: float,
        on_loss: OnLoss,
        clock_offset_ns: int = 0,
    ) -> None:
        self._address, self._on_loss = address, on_loss
        self._clock_offset_ns = clock_offset_ns
        self._failure: LinkLost | None = None
        self._closed = False
        self._num_broken = 0
        self._counts = LinkCounts()
        self._counts.place = address.place
        self._descriptors: dict[object, int] = {}  # of the connections, which are ZeroMQ's
        self._poller = zmq.Poller()
        self._sockets: dict[Priority, zmq.Socket[bytes]] = {}
        self._outgoing = {one: OutgoingLane(epoch, source, target) for one in Priority}
        self._incoming = {one: IncomingLane(epoch, target, source) for one in Priority}
        monitors = []
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        for priority in Priority:
            socket = self._sockets[priority] = context.socket(zmq.DEALER)
            _make_ready(socket, address, keys)
            keep_alive(socket, timeout_s, priority)
            monitors.append(socket.get_monitor_socket())
            socket.connect(address.endpoint)
            self._poller.register(socket, zmq.POLLIN)
        threading.Thread(
            target=self._watch, args=(monitors,), daemon=True, name=f"link-{target}"
        ).start()

    @property
    def place(self) -> str:
        return self._address.place

    def send(self, header: TensorHeader, payload: Bytes) -> None:
        self._refuse_if_lost()
        lane = self._outgoing[header.priority]
        head = lane.seal(header, payload, self._now_ns())
        self._sockets[header.priority].send_multipart([head, payload], zmq.NOBLOCK)
        self._counts.see_sent(len(head) + len(payload))

    def receive(self, timeout_s: float) -> Received | None:
        until_s = time.monotonic() + timeout_s
        while True:
            received = self._take()
            if received is not None:
                return received
            self._refuse_if_lost()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            self._poller.poll(math.ceil(min(_LOOK_S, left_s) * 1000))

    def stats(self) -> LinkStats:
        if self._failure is None and not self._closed:
            self._counts.ask_system(list(self._descriptors.values()))
        return self._counts.stats()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for socket in self._sockets.values():
            socket.disable_monitor()
            socket.close(linger=_LAST_WORDS_MS)

    def _take(self) -> Received | None:
        for priority, socket in self._sockets.items():  # control first
            while int(socket.get(zmq.EVENTS)) & zmq.POLLIN:
                try:
                    header, payload = read_parts(socket.recv_multipart(zmq.NOBLOCK, copy=False))
                    if self._incoming[priority].take(header, self._now_ns()):
                        self._counts.see_received(HEADER_BYTES + len(payload))
                        return Received(header, payload)
                    self._counts.see_dropped()
                except OtherMessageVersion as error:
                    raise Refused(f"what {self.place} sends cannot be read: {error}") from None
                except (MessageError, LaneBroken) as error:
                    raise LinkLost(f"what {self.place} sends is of no use: {error}") from None
        return None

    def _refuse_if_lost(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self._clock_offset_ns

    def _watch(self, monitors: list[zmq.Socket[bytes]]) -> None:
        poller = zmq.Poller()
        for monitor in monitors:
            poller.register(monitor, zmq.POLLIN)
        stands: set[object] = set()
        num_open = len(monitors)
        try:
            while num_open:
                for monitor, _ in poller.poll():
                    told = parse_monitor_message(monitor.recv_multipart())
                    event = zmq.Event(told["event"])
                    if event is zmq.Event.MONITOR_STOPPED:
                        poller.unregister(monitor)
                        num_open -= 1
                    elif event is zmq.Event.HANDSHAKE_SUCCEEDED:
                        stands.add(monitor)
                    elif event is zmq.Event.CONNECTED:
                        self._descriptors[monitor] = int(told["value"])
                    else:
                        self._judge(event, did_stand=monitor in stands)
        except zmq.ContextTerminated:  # which may come before the last events
            pass
        finally:
            for monitor in monitors:
                monitor.close(linger=0)

    def _judge(self, event: zmq.Event, *, did_stand: bool) -> None:
        match event:
            case zmq.Event.DISCONNECTED if did_stand:
                self._lose(LinkLost(f"the connection to {self.place} has ended"))
            case zmq.Event.HANDSHAKE_FAILED_AUTH:
                self._lose(
                    Refused(
                        f"the host at {self.place} does not allow our key; start its novacron rank "
                        "with --allow and the public key that novacron cluster key prints here"
                    )
                )
            case zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
                self._num_broken += 1
                if self._num_broken == _MOST_BROKEN_HANDSHAKES:
                    self._say_who_it_is_not()

    def _lose(self, failure: LinkLost) -> None:
        if self._failure is None and not self._closed:
            self._failure = failure
            self._on_loss(str(failure))

    def _say_who_it_is_not(self) -> None:
        logger.error(
            "What listens at %s is no novacron rank with the key %s...: handshakes with it end "
            "without a word. Compare the key with what that host prints at its start. Trying on.",
            self.place, self._address.public_key[:8],
        )  # fmt: skip


def _make_ready(socket: zmq.Socket[bytes], address: EngineAddress, keys: KeyPair) -> None:
    socket.curve_publickey = in_z85(keys.public)
    socket.curve_secretkey = in_z85(keys.secret)
    socket.curve_serverkey = in_z85(address.public_key)
    socket.set_hwm(0)
    socket.linger = _LAST_WORDS_MS
    socket.reconnect_ivl = _RETRY_MS
    socket.reconnect_ivl_max = _LAST_RETRY_MS
    socket.connect_timeout = _HANDSHAKE_MS
    socket.handshake_ivl = _HANDSHAKE_MS
    socket.ipv6 = ":" in address.host
