"""LinkedEngine: an engine process on another host, as ProcessClient holds one of its own.

The host's EngineHost starts and watches the process and passes its messages on; here stands the
other end of the link. It is looked for as long as it takes; once it stood and is lost, this engine
is over, and ProcessClient makes the next one, in a new epoch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from novacron.config.engine import EngineConfig
from novacron.engine.heart_monitor import VitalSigns
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.connection import Connection
from novacron.engine.link.envelope import (
    NO_EPOCH,
    Channel,
    Incoming,
    LinkBroken,
    OtherVersion,
    Outgoing,
    open_envelope,
)
from novacron.engine.link.keys import KeyPair
from novacron.engine.link.link_counts import LinkCounts
from novacron.engine.link.other_clock import OtherClock
from novacron.engine.link.silence import LOOK_S, Silence
from novacron.engine.pulse import Reading
from novacron.errors import ConfigError, NovaCronError
from novacron.records import wire
from novacron.records.parallel_stats import LinkStats

_BUSY_RETRY_S: Final = 1.0
_EXIT_FAILED: Final = 3

FindHost = Callable[[], Awaitable[EngineAddress]]

logger = logging.getLogger(__name__)


class LinkedEngine:
    """Implements EngineHandle. `find` tells where the host is, and may take its time; `server`
    names this process to hosts; after `timeout_s` of silence the link counts as lost."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        find: FindHost,
        keys: KeyPair,
        server: str,
        timeout_s: float,
    ) -> None:
        self._config = config
        self._find = find
        self._keys = keys
        self._server = server
        self._timeout_s = timeout_s
        self._silence = Silence(timeout_s)
        self._connection: Connection | None = None
        self._outgoing = Outgoing(NO_EPOCH)
        self._incoming = Incoming(NO_EPOCH)
        self._counts = LinkCounts()
        self._clock = OtherClock(0.0)
        self._asked_s = 0.0  # when the Hello left
        self._welcome: wire.Welcome | None = None
        self._reading = Reading(0, 0)
        self._stopped_pids: tuple[int, ...] = ()
        self._rank_pids: tuple[int, ...] = ()
        self._has_ended = asyncio.Event()
        self._exit_code: int | None = None
        self._reader: asyncio.Task[object] | None = None
        self._closed = False

    @property
    def local_pid(self) -> int | None:
        return None

    @property
    def link_stats(self) -> LinkStats:
        return self._counts.stats()

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, message: wire.ToEngine) -> bool:
        if self._welcome is None or self._closed or self._has_ended.is_set():
            return False
        if isinstance(message, wire.Submit):
            message = wire.Submit(self._clock.requests_there(message.requests))
        self._post(Channel.ENGINE, wire.encode(message))
        return True

    def vital_signs(self, rank_pids: tuple[int, ...]) -> VitalSigns:
        """As the host sees them. While there is no host, nobody can be accused."""
        if self._welcome is None:
            self._reading = Reading(self._reading.num_beats + 1, 0)
        return VitalSigns(self._reading, self._stopped_pids)

    async def messages(self) -> AsyncIterator[wire.FromEngine]:
        self._reader = asyncio.current_task()
        beating = asyncio.get_running_loop().create_task(self._beat())
        try:
            yield wire.Loading("connect", 0.0)
            address = await self._find()
            self._counts.place = address.place
            if self._closed:
                return
            connection = self._connection = Connection(address, self._keys)
            self._say_hello()
            async for frame in connection.frames():
                for message in self._take(frame, address):
                    yield message
                if self._closed or self._has_ended.is_set():
                    return
            if connection.failure is not None:
                raise connection.failure
        except NovaCronError as error:
            yield wire.Failed(type(error).__name__, str(error))
            self._end(_EXIT_FAILED)
        except OtherVersion as error:
            yield wire.Failed(ConfigError.__name__, f"No link to {address.place}: {error}.")
            self._end(_EXIT_FAILED)
        except Exception as error:
            self._lose(str(error) or repr(error))
        finally:
            beating.cancel()
            if self._has_ended.is_set() and self._connection is not None:
                self._connection.close()

    async def wait(self) -> int | None:
        await self._has_ended.wait()
        return self._exit_code

    async def end(self, patience_s: float) -> None:
        if self.send(wire.Shutdown()) and not await self._ends_within(patience_s):
            self.kill()
            await self._ends_within(patience_s)
        self._end(None)
        self.close()

    async def _ends_within(self, patience_s: float) -> bool:
        try:
            await asyncio.wait_for(self._has_ended.wait(), patience_s)
        except TimeoutError:
            return False
        return True

    def kill(self) -> None:
        if self._welcome is None:
            self._end(None)
        elif not self._has_ended.is_set():
            self._post(Channel.LINK, wire.encode(wire.Kill()))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            if self._welcome is not None and not self._has_ended.is_set():
                self._post(Channel.LINK, wire.encode(wire.Bye()))
            self._connection.close()
        elif self._reader is not None:
            self._reader.cancel()  # it still looks for the host

    def _post(self, channel: Channel, body: bytes) -> None:
        assert self._connection is not None
        frame = self._outgoing.seal(channel, body)
        self._counts.see_sent(len(frame))
        self._connection.send(frame)

    def _say_hello(self) -> None:
        self._asked_s = time.monotonic()
        hello = wire.Hello(self._server, self._timeout_s, self._config)
        assert self._connection is not None
        self._connection.send(Outgoing(NO_EPOCH).seal(Channel.LINK, wire.encode(hello)))

    def _take(self, frame: memoryview, address: EngineAddress) -> list[wire.FromEngine]:
        """Raises LinkBroken."""
        envelope = open_envelope(frame)
        self._silence.hear()
        self._counts.see_received(len(frame))
        if envelope.channel is Channel.LINK and self._welcome is None:
            return self._greet(wire.decode_from_host(envelope.body), envelope.epoch, address)
        if envelope.epoch == NO_EPOCH:  # all that a host says so is that we are not its client
            raise LinkBroken("the host has given this server up meanwhile")
        if not self._incoming.take(envelope):
            self._counts.see_dropped()
            return []
        if envelope.channel is Channel.ENGINE:
            return [self._as_here(wire.decode_from_engine(envelope.body))]
        match wire.decode_from_host(envelope.body):
            case wire.VitalSigns(num_beats, num_stuck, stopped_pids, lost_ranks, heard_s, held_s):
                self._counts.see_echo(heard_s, held_s, time.monotonic())
                self._reading = Reading(num_beats, num_stuck, lost_ranks)
                self._stopped_pids = stopped_pids
            case wire.Ended(exit_code):
                self._end(exit_code)
            case _:
                pass  # said before a Welcome only
        return []

    def _greet(
        self, message: wire.FromHost, epoch: int, address: EngineAddress
    ) -> list[wire.FromEngine]:
        match message:
            case wire.Welcome(host_name, clock_s):
                now_s = time.monotonic()
                self._clock = OtherClock(clock_s - (self._asked_s + now_s) / 2)
                self._outgoing, self._incoming = Outgoing(epoch), Incoming(epoch)
                self._incoming.skip()  # the Welcome itself
                self._reading = Reading(0, 0)
                self._welcome = message
                logger.info("linked to %s at %s", host_name, address.place)
            case wire.Rejected(kind, text, is_busy):
                if not is_busy:
                    return [wire.Failed(kind, text)]
                logger.warning("%s at %s: %s", "waiting", address.place, text)
                asyncio.get_running_loop().call_later(_BUSY_RETRY_S, self._say_hello_again)
        return []

    def _say_hello_again(self) -> None:
        if self._welcome is None and not self._closed:
            self._say_hello()

    def _as_here(self, message: wire.FromEngine) -> wire.FromEngine:
        """With the times of this host, and without process ids, which mean others here."""
        match message:
            case wire.Outputs(outputs, stats):
                outputs = self._clock.outputs_here(outputs)
                if stats.rank_pids:
                    self._rank_pids = stats.rank_pids
                    stats = msgspec.structs.replace(stats, rank_pids=())
                return wire.Outputs(outputs, stats)
            case wire.Ready(version, spec):
                assert self._welcome is not None
                self._rank_pids = spec.rank_pids
                name = self._welcome.host_name
                return wire.Ready(version, msgspec.structs.replace(spec, host=name, rank_pids=()))
        return message

    async def _beat(self) -> None:
        """Signs of life there, and a look whether there are some from there."""
        while not self._has_ended.is_set():
            await asyncio.sleep(LOOK_S)
            if self._closed or self._connection is None or not self._connection.stands:
                continue
            if self._silence.look():
                self._lose(
                    f"nothing was heard of its host for {self._timeout_s:g} s (link_timeout)"
                )
                return
            if self._welcome is not None:
                alive = wire.Alive(self._rank_pids, time.monotonic())
                self._post(Channel.LINK, wire.encode(alive))
                self._counts.see_resent(self._connection.descriptor)

    def _lose(self, reason: str) -> None:
        if self._closed or self._has_ended.is_set():
            return
        logger.warning("a link to an engine is lost: %s", reason)
        self._end(None)

    def _end(self, exit_code: int | None) -> None:
        if not self._has_ended.is_set():
            self._exit_code = exit_code
            self._has_ended.set()
