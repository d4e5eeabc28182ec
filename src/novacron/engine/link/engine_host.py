"""EngineHost: keeps an engine on this host for a server on another one.

One engine at a time, for whoever has an allowed key and says Hello; an ordinary engine process, as
a child of this one. Its messages pass through unread. The link's epoch counts these engines: what
comes late, from a server that was cut off, belongs to an epoch that is over, and is dropped. A
server that falls silent loses its engine, so that nobody computes for ever for no one.
"""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Final

import msgspec
import zmq

from novacron.config.engine import EngineConfig
from novacron.engine.engine_process import EngineProcess
from novacron.engine.link.access import DOMAIN, AccessControl
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.envelope import (
    NO_EPOCH,
    Channel,
    Envelope,
    LinkBroken,
    OtherVersion,
    Outgoing,
    open_envelope,
)
from novacron.engine.link.hosted_engine import HostedEngine, Prepare
from novacron.engine.link.keys import KeyPair, in_z85
from novacron.engine.link.listen import bind_first_free
from novacron.engine.link.silence import LOOK_S
from novacron.engine.socket_reader import SocketReader
from novacron.errors import ConfigError
from novacron.records import wire

_LARGEST_MESSAGE_BYTES: Final = 2**28
_LAST_WORDS_MS: Final = 500

logger = logging.getLogger(__name__)


class EngineHost:
    """`listen`: tcp://ADDRESS:PORT, or tcp://ADDRESS:FIRST-LAST for the first free port of these.
    `allowed` are public keys. `prepare` makes of the settings that a server wants those that this
    host has, and the path of the model; it may take its time, and raises what keeps it from that.

    Raises ConfigError if it cannot listen there.
    """

    def __init__(
        self,
        listen: str,
        keys: KeyPair,
        allowed: Iterable[str],
        prepare: Prepare,
        *,
        make_process: Callable[[EngineConfig, Path], EngineProcess] = EngineProcess,
    ) -> None:
        self._prepare = prepare
        self._make_process = make_process
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        AccessControl(self._context, allowed)
        socket = self._socket = self._context.socket(zmq.ROUTER)
        socket.curve_server = True
        socket.curve_publickey = in_z85(keys.public)
        socket.curve_secretkey = in_z85(keys.secret)
        socket.zap_domain = DOMAIN
        socket.set_hwm(0)
        socket.linger = _LAST_WORDS_MS
        socket.maxmsgsize = _LARGEST_MESSAGE_BYTES
        try:
            host, self.port = bind_first_free(socket, listen)
        except ConfigError:
            socket.close(linger=0)
            self._context.term()
            raise
        self.address = EngineAddress(host, self.port, keys.public)
        self._reader = SocketReader(socket)
        self._last_epoch = NO_EPOCH
        self._engine: HostedEngine | None = None
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled; the engine is ended, and its server told."""
        watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            async for sender, *_, frame in self._reader.messages():
                self._receive(sender.bytes, frame)
        finally:
            watching.cancel()
            if self._engine is not None:
                self._engine.tell(wire.Ended(0))
                await self._engine.end()
            for task in self._tasks:
                task.cancel()
            self._reader.close()
            self._socket.close()
            await asyncio.to_thread(self._context.term)

    def _receive(self, sender: bytes, frame: zmq.Frame) -> None:
        """Whatever an allowed peer may send, this goes on."""
        try:
            envelope = open_envelope(frame.buffer)
            if envelope.channel is Channel.LINK and envelope.epoch == NO_EPOCH:
                self._greet(sender, wire.decode_to_host(envelope.body))
            else:
                self._pass_on(sender, envelope)
        except OtherVersion as error:
            logger.warning("a server was sent away: %s", error)
            self._answer(sender, wire.Rejected("ConfigError", f"No engine: {error}."))
        except msgspec.MsgspecError as error:
            logger.warning("a server sent what cannot be understood: %s", error)
            reason = f"This host cannot understand what it was sent: {error}. Install the same "
            self._answer(sender, wire.Rejected("ConfigError", f"{reason}NovaCron on both hosts."))

    def _pass_on(self, sender: bytes, envelope: Envelope) -> None:
        engine = self._engine
        if engine is None or sender != engine.client:
            self._answer(sender, wire.Fenced())
            return
        try:
            engine.receive(envelope)
        except LinkBroken as error:
            logger.warning("the link to %s is given up: %s", engine.server, error)
            self._start(engine.end())

    def _greet(self, sender: bytes, message: wire.ToHost) -> None:
        if not isinstance(message, wire.Hello):
            return
        engine = self._engine
        if engine is not None and engine.server != message.server and not engine.has_ended:
            text = "another server uses this host; it becomes free when that one ends"
            self._answer(sender, wire.Rejected("NotReady", text, is_busy=True))
            return
        self._start(self._serve(sender, message))

    async def _serve(self, sender: bytes, hello: wire.Hello) -> None:
        async with self._changing:
            if self._engine is not None:  # of the same server, which has given it up
                await self._engine.end()
            self._last_epoch = max(self._last_epoch + 1, time.time_ns())
            engine = self._engine = HostedEngine(
                sender, hello, self._last_epoch, self._send, self._make_process
            )
            engine.tell(wire.Welcome(sockets.gethostname(), time.monotonic()))
            logger.info("an engine is started for %s", hello.server)
            await engine.start(self._prepare)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            engine = self._engine
            if engine is not None and not engine.has_ended and engine.look():
                logger.warning("%s is silent: its engine is ended", engine.server)
                await engine.end()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, sender: bytes, message: wire.FromHost) -> None:
        self._send(sender, Outgoing(NO_EPOCH).seal(Channel.LINK, wire.encode(message)))

    def _send(self, client: bytes, frame: bytes) -> None:
        """What nobody receives any more is dropped."""
        if not self._socket.closed:
            self._socket.send_multipart([client, frame], zmq.NOBLOCK)
            self._reader.nudge()
