"""RayHosts: asks Ray, through cluster/ray_platform in a process of its own, where replicas are.

What that process is told is asked again of the next one, should it end: a cluster that was lost
may come back, and engines that still run do not need Ray at all.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from novacron.engine.client import NodeStatus
from novacron.engine.link.address import EngineAddress
from novacron.errors import ConfigError, ModelLoadError

_PROGRAM: Final = "from novacron.cluster.ray_platform import main; main()"
_RETRY_S: Final = 2.0

logger = logging.getLogger(__name__)


class RaySettings(msgspec.Struct, frozen=True):
    """What the process is told first. `resources` are those that a replica takes of its node;
    `allow`: the public key that may open links; `listen`: the ports, of which a host takes the
    first free one."""

    address: str
    resources: dict[str, float]
    allow: str
    listen: str


class Find(msgspec.Struct, frozen=True):
    """Where is the host of this replica? Answered, under the same number, once it has one."""

    number: int
    replica: str


class Found(msgspec.Struct, frozen=True, tag=True):
    """`error`: why there is none; then `address` is empty. Number 0: why there is no cluster."""

    number: int
    address: str = ""
    error: str = ""


class RayNode(msgspec.Struct, frozen=True):
    name: str
    address: str
    is_alive: bool
    num_places: float


class Nodes(msgspec.Struct, frozen=True, tag=True):
    """Of the cluster, now and then, unasked."""

    nodes: tuple[RayNode, ...]


class _PlatformEnded(Exception):
    """The process has ended, and its answers will not come."""


class RayHosts:
    """Belongs to one event loop. `environment` is that of the process: Ray reads much from it."""

    def __init__(self, settings: RaySettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = dict(environment)
        self._numbers = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Found]] = {}
        self._finding: dict[str, asyncio.Task[EngineAddress]] = {}
        self._has_connected = False
        self.nodes: tuple[NodeStatus, ...] = ()  # as the cluster told last
        self._refusal = ""
        self._reading: asyncio.Task[None] | None = None

    async def find(self, replica: str) -> EngineAddress:
        """Where its host listens now. Waits for a node that has room, for as long as it takes.

        Raises ConfigError if there is no such cluster, ModelLoadError if a node cannot start it.
        """
        finding = self._finding.get(replica)
        if finding is None or finding.done():
            work = self._find(replica)
            finding = self._finding[replica] = asyncio.get_running_loop().create_task(work)
        return await asyncio.shield(finding)  # whoever asks may go; the question stays the same

    async def close(self) -> None:
        """End the process, and with it all that it has placed."""
        for finding in self._finding.values():
            finding.cancel()
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            await process.wait()
        if self._reading is not None:
            await self._reading

    async def _find(self, replica: str) -> EngineAddress:
        while True:
            try:
                found = await self._ask(replica)
            except _PlatformEnded:
                if not self._has_connected:
                    raise ConfigError(
                        f"ray_address is {self._settings.address!r}: {self._refusal or 'Ray ends'} "
                        "Start a cluster with novacron cluster up, and join it on this host."
                    ) from None
                logger.warning("Ray is lost; trying again: %s", self._refusal)
                await asyncio.sleep(_RETRY_S)
                continue
            if found.error:
                raise ModelLoadError(f"Ray could not start {replica}: {found.error}")
            self._has_connected = True
            return EngineAddress.parse(found.address, "The address that a node tells")

    async def _ask(self, replica: str) -> Found:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._process.stdin.write(msgspec.json.encode(Find(number, replica)) + b"\n")
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def _start(self) -> None:
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # a terminal's Ctrl-C is for the server
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self._settings) + b"\n")
        self._reading = asyncio.get_running_loop().create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            found = msgspec.json.decode(line, type=Found | Nodes)
            if isinstance(found, Nodes):
                self.nodes = tuple(
                    NodeStatus(
                        name=one.name,
                        address=one.address,
                        is_alive=one.is_alive,
                        num_places=one.num_places,
                    )
                    for one in found.nodes
                )
                continue
            if found.number == 0:
                self._refusal = found.error
                continue
            answer = self._waiting.get(found.number)
            if answer is not None and not answer.done():
                answer.set_result(found)
        await process.wait()
        for answer in tuple(self._waiting.values()):
            if not answer.done():
                answer.set_exception(_PlatformEnded())
