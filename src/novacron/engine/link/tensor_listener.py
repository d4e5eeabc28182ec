"""RankListener: where a rank is found by those on other hosts, over CurveZMQ. Implements
TensorListener."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from novacron.engine.link.access import DOMAIN, AccessControl
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, in_z85
from novacron.engine.link.listen import bind_first_free
from novacron.engine.link.tensor_lanes import Parts, keep_alive, read_parts
from novacron.errors import ConfigError
from novacron.parallel.messages.links import LinkLost, OnLoss, Received
from novacron.parallel.messages.message_order import IncomingLane, LaneBroken, OutgoingLane
from novacron.parallel.messages.tensor_message import (
    Bytes,
    Kind,
    MessageError,
    OtherMessageVersion,
    Priority,
    TensorHeader,
    seal,
)

_LAST_WORDS_MS: Final = 250
_VERSION_OF_OURS: Final = TensorHeader(kind=Kind.ORDER, priority=Priority.CONTROL, shape=(0,))

logger = logging.getLogger(__name__)


@dataclass
class _Peer:
    """A connection of somebody who has sent something, in the epoch of the first message."""

    incoming: IncomingLane
    outgoing: OutgoingLane
    descriptor: int


class RankListener:
    """`on_loss` is told, by another thread, when a connection that this rank ends with has ended.
    `clock_offset_ns` may be set once the clock of the group is known. Raises ConfigError if it
    cannot listen there."""

    def __init__(
        self,
        listen: str,
        keys: KeyPair,
        allowed: Iterable[str],
        *,
        timeout_s: float,
        on_loss: OnLoss,
    ) -> None:
        self._on_loss = on_loss
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._access = AccessControl(self._context, allowed)
        socket = self._socket = self._context.socket(zmq.ROUTER)
        socket.curve_server = True
        socket.curve_publickey = in_z85(keys.public)
        socket.curve_secretkey = in_z85(keys.secret)
        socket.zap_domain = DOMAIN
        socket.router_mandatory = True
        socket.set_hwm(0)
        socket.linger = _LAST_WORDS_MS
        keep_alive(socket, timeout_s, Priority.DATA)  # those who connect ask for less, or not
        monitor = socket.get_monitor_socket(zmq.Event.DISCONNECTED | zmq.Event.MONITOR_STOPPED)
        self._vital: set[int] = set()
        threading.Thread(
            target=self._watch, args=(monitor,), daemon=True, name="rank-watch"
        ).start()
        try:
            host, self.port = bind_first_free(socket, listen)
        except ConfigError:
            socket.close(linger=0)
            raise
        self.address = EngineAddress(host, self.port, keys.public)
        self.clock_offset_ns = 0
        self._peers: dict[bytes, _Peer] = {}
        self._waiting: dict[Priority, deque[Received]] = {one: deque() for one in Priority}

    def admit(self, key: str) -> None:
        self._access.admit(key)

    def end_with(self, address: bytes) -> None:
        self._vital.add(self._peers[address].descriptor)

    def reply(self, address: bytes, header: TensorHeader, payload: Bytes) -> None:
        head = self._peers[address].outgoing.seal(header, payload, self._now_ns())
        if not self._send(address, head, payload):
            raise LinkLost("whoever is to get it is gone")

    def receive(self, timeout_s: float) -> Received | None:
        until_s = time.monotonic() + timeout_s
        while True:
            while int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                self._take(*self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
            for waiting in self._waiting.values():  # control first
                if waiting:
                    return waiting.popleft()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            self._socket.poll(math.ceil(left_s * 1000))

    def close(self) -> None:
        """Harmless when called again."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._socket.close()
            self._context.term()

    def _take(self, sender: zmq.Frame, *parts: zmq.Frame) -> None:
        """Whatever somebody allowed may send, this goes on. A broken lane shows as a gap in what
        the group expects."""
        address = sender.bytes
        try:
            header, payload = read_parts(list(parts))
            if not self._peer(address, header, parts[-1]).incoming.take(header, self._now_ns()):
                raise LaneBroken("it is of another epoch than those before it")
        except (MessageError, LaneBroken) as error:
            logger.warning("a message from %s is of no use: %s", _place(parts), error)
            if isinstance(error, OtherMessageVersion):
                self._send(address, seal(_VERSION_OF_OURS, b""), b"")  # all that it may understand
            self._lose_if_vital(address, error)
            return
        key = str(parts[-1].get("User-Id"))
        self._waiting[header.priority].append(Received(header, payload, address, key))

    def _send(self, address: bytes, head: bytes, payload: Bytes) -> bool:
        """Whether whoever has the address is there."""
        try:
            self._socket.send_multipart([address, head, payload], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def _peer(self, address: bytes, header: TensorHeader, part: zmq.Frame) -> _Peer:
        found = self._peers.get(address)
        if found is None:
            theirs = header.epoch, header.source, header.target
            found = self._peers[address] = _Peer(
                IncomingLane(*theirs, first=header.sequence),
                OutgoingLane(header.epoch, header.target, header.source),
                int(part.get(zmq.SRCFD)),
            )
        return found

    def _lose_if_vital(self, address: bytes, reason: Exception) -> None:
        peer = self._peers.get(address)
        if peer is not None and peer.descriptor in self._vital:
            self._on_loss(f"what another rank sends is of no use: {reason}")

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self.clock_offset_ns

    def _watch(self, monitor: zmq.Socket[bytes]) -> None:
        try:
            while True:
                event = parse_monitor_message(monitor.recv_multipart())
                if event["event"] == zmq.Event.MONITOR_STOPPED:
                    return
                if event["value"] in self._vital:
                    self._on_loss("the connection to another rank has ended")
        except zmq.ContextTerminated:  # which may come before the last event
            pass
        finally:
            monitor.close(linger=0)


def _place(parts: tuple[zmq.Frame, ...] | Parts) -> str:
    try:
        return str(parts[-1].get("Peer-Address"))
    except (zmq.ZMQError, IndexError):
        return "somebody"
