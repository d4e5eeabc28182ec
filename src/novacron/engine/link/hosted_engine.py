"""HostedEngine: one engine process of an EngineHost, and the end of the link that it is spoken to
over. Lives for one epoch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from novacron.config.engine import EngineConfig
from novacron.engine.engine_process import EngineProcess
from novacron.engine.link.envelope import Channel, Envelope, Incoming, Outgoing
from novacron.engine.link.silence import Silence
from novacron.errors import ModelLoadError, NovaCronError
from novacron.records import wire

_LAST_WORDS_S: Final = 0.05  # what a process sent before it died still arrives

Send = Callable[[bytes, bytes], None]  # to a client, a frame
Prepare = Callable[[EngineConfig], tuple[EngineConfig, Path]]

logger = logging.getLogger(__name__)


class HostedEngine:
    """`client` is the sender's address on the socket, `server` its name."""

    def __init__(
        self,
        client: bytes,
        hello: wire.Hello,
        epoch: int,
        send: Send,
        make_process: Callable[[EngineConfig, Path], EngineProcess],
    ) -> None:
        self.client = client
        self.server = hello.server
        self._config = hello.config
        self._send = send
        self._make_process = make_process
        self._outgoing = Outgoing(epoch)
        self._incoming = Incoming(epoch)
        self._silence = Silence(hello.timeout_s)
        self._process: EngineProcess | None = None
        self._num_beats = 0
        self._rank_pids: tuple[int, ...] = ()
        self._heard = (0.0, 0.0)  # what the newest sign of life told, and when it came
        self._is_over = False  # nothing more is sent or taken
        self._gone = asyncio.Event()  # no process is left
        self._gone.set()
        self._duties: tuple[asyncio.Task[None], ...] = ()

    @property
    def has_ended(self) -> bool:
        return self._is_over

    def tell(self, message: wire.FromHost) -> None:
        self._post(Channel.LINK, wire.encode(message))

    async def start(self, prepare: Prepare) -> None:
        """Return once the process is on its way. What keeps it from that, the client is told."""
        try:
            config, path = await asyncio.to_thread(prepare, self._config)
            if self._is_over:
                return
            self._process = self._make_process(config, path)
        except NovaCronError as error:
            self._fail(error)
            return
        except OSError as error:
            self._fail(ModelLoadError(f"The engine process cannot be started: {error}."))
            return
        self._gone.clear()
        loop = asyncio.get_running_loop()
        self._duties = (
            loop.create_task(self._pass_on(self._process)),
            loop.create_task(self._await_death(self._process)),
        )

    def receive(self, envelope: Envelope) -> None:
        """Raises LinkBroken."""
        if self._is_over or not self._incoming.take(envelope):
            return
        self._silence.hear()
        if envelope.channel is Channel.ENGINE:
            if self._process is not None:
                self._process.send_encoded(envelope.body)
            return
        match wire.decode_to_host(envelope.body):
            case wire.Alive(rank_pids, sent_s):
                self._rank_pids = rank_pids
                self._heard = (sent_s, time.monotonic())
            case wire.Kill():
                self._kill()
            case wire.Bye():
                self._is_over = True
                self._kill()
            case wire.Hello():
                pass

    def look(self) -> bool:
        """Tell how it is, and say whether the client has been silent for too long."""
        self._num_beats += 1
        process = self._process
        sent_s, came_s = self._heard
        held_s = time.monotonic() - came_s
        if process is None or process.closed:  # the model is being fetched, say
            self.tell(wire.VitalSigns(self._num_beats, 0, (), 0, sent_s, held_s))
        else:
            signs = process.vital_signs(self._rank_pids)
            self.tell(
                wire.VitalSigns(
                    self._num_beats + signs.pulse.num_beats,
                    signs.pulse.num_stuck,
                    signs.stopped_pids,
                    signs.pulse.lost_ranks,
                    sent_s,
                    held_s,
                )
            )
        return self._silence.look()

    async def end(self) -> None:
        """Return when no process is left."""
        self._is_over = True
        self._kill()
        await self._gone.wait()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _fail(self, error: NovaCronError) -> None:
        failed = wire.Failed(type(error).__name__, str(error))
        self._post(Channel.ENGINE, wire.encode(failed))
        self.tell(wire.Ended(3))
        self._is_over = True

    def _post(self, channel: Channel, body: bytes | memoryview) -> None:
        if not self._is_over:
            self._send(self.client, self._outgoing.seal(channel, body))

    async def _pass_on(self, process: EngineProcess) -> None:
        async for message in process.encoded_messages():
            self._post(Channel.ENGINE, message)

    async def _await_death(self, process: EngineProcess) -> None:
        exit_code = await process.wait()
        await asyncio.sleep(_LAST_WORDS_S)
        process.close()
        self._gone.set()
        if exit_code is not None and not self._is_over:
            logger.info("the engine has ended with exit code %d", exit_code)
            self.tell(wire.Ended(exit_code))
        self._is_over = True
