"""Connection: the client's socket of one link, encrypted, and what ZeroMQ tells of its handshakes.

ZeroMQ tries to connect again by itself, in silence, whatever the reason. Here reasons are told
apart: a host that is not there may come; one that refuses our key says so, and is left alone. One
that has another key than it is known by says nothing, and so do proxies whose host is away: that
is logged, and tried on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, in_z85
from novacron.engine.socket_reader import SocketReader
from novacron.errors import ConfigError

_FIRST_RETRY_MS: Final = 100
_LAST_RETRY_MS: Final = 2000
_CONNECT_MS: Final = 5000
_LAST_WORDS_MS: Final = 250  # for what was sent to leave after `close`
_MOST_BROKEN_HANDSHAKES: Final = 5  # then it is not just being restarted

logger = logging.getLogger(__name__)


class Disconnected(Exception):
    """The connection stood, and stands no more."""


class Connection:
    """`stands` from the end of the handshake; `failure` is set when `frames` ends by itself."""

    def __init__(self, address: EngineAddress, keys: KeyPair) -> None:
        self._address = address
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = self._socket = context.socket(zmq.DEALER)
        socket.curve_publickey = in_z85(keys.public)
        socket.curve_secretkey = in_z85(keys.secret)
        socket.curve_serverkey = in_z85(address.public_key)
        socket.set_hwm(0)
        socket.linger = _LAST_WORDS_MS
        socket.reconnect_ivl = _FIRST_RETRY_MS
        socket.reconnect_ivl_max = _LAST_RETRY_MS
        socket.connect_timeout = _CONNECT_MS
        socket.handshake_ivl = _CONNECT_MS
        socket.ipv6 = ":" in address.host
        self._monitor = socket.get_monitor_socket()
        socket.connect(address.endpoint)
        self._reader = SocketReader(socket)
        self._events = SocketReader(self._monitor)
        self.stands = False
        self.descriptor: int | None = None  # of the socket below, which is ZeroMQ's
        self._num_broken = 0
        self.failure: Exception | None = None
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    def send(self, frame: bytes) -> None:
        """Never blocks. What is sent before the connection stands, leaves once it does."""
        self._socket.send(frame, zmq.NOBLOCK)
        self._reader.nudge()

    async def frames(self) -> AsyncIterator[memoryview]:
        """What arrives, until `close` or a failure."""
        async for frames in self._reader.messages():
            yield frames[0].buffer

    def close(self) -> None:
        """What was sent may still leave."""
        if self._socket.closed:
            return
        self._listening.cancel()
        self._events.close()
        self._reader.close()
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()

    async def _listen(self) -> None:
        async for message in self._events.messages():
            event = parse_monitor_message([frame.bytes for frame in message])
            if event["event"] == zmq.Event.CONNECTED:
                self.descriptor = int(event["value"])
            failure = self._judge(zmq.Event(event["event"]))
            if failure is not None:
                self.failure = failure
                self._reader.close()
                return

    def _judge(self, event: zmq.Event) -> Exception | None:
        """What it means for the link; None: nothing yet."""
        place = self._address.place
        match event:
            case zmq.Event.HANDSHAKE_SUCCEEDED:
                self.stands = True
            case zmq.Event.DISCONNECTED if self.stands:
                return Disconnected(f"the connection to {place} has ended")
            case zmq.Event.HANDSHAKE_FAILED_AUTH:
                return ConfigError(
                    f"The host at {place} does not allow our key. Start its novacron engine with "
                    "--allow and the public key that novacron cluster key prints here."
                )
            case zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
                self._num_broken += 1
                if self._num_broken == _MOST_BROKEN_HANDSHAKES:
                    logger.error(
                        "What listens at %s is no novacron engine with the key %s...: handshakes "
                        "with it end without a word. Compare the key in engine_hosts with what "
                        "that host prints at its start. Trying on.",
                        place,
                        self._address.public_key[:8],
                    )
        return None
