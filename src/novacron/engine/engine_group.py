"""EngineGroup: engines of one model that are started together, the first of them before the others.

What several precisions of a model (VariantsClient) and several replicas of it (ReplicasClient) have
in common: the first engine tells by its start whether the model can be served at all, and leaves
packed weights for those that follow. A further one that cannot be loaded is missing, and nothing
else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from novacron.config.engine import EngineConfig
from novacron.engine.client import EngineClient
from novacron.errors import NotReady, NovaCronError
from novacron.quality.document import Document

logger = logging.getLogger(__name__)


class MemberClient(EngineClient, Protocol):
    """The client of one engine of a group, as ProcessClient is one."""

    def spawn(self) -> None: ...

    async def start(self) -> None: ...

    def score(self, answer: Document) -> None: ...

    def on_rank_loss(self, callback: Callable[[], None]) -> None:
        """Called when ranks are lost, or are whole again: see `stats.lost_ranks`."""
        ...

    def hand_over(self) -> None:
        """Have what runs here raise EngineDead, to go on elsewhere, though the engine lives."""
        ...


class EngineGroup:
    """`configs` by name, the first engine first; `make_client` makes the client of one of them,
    which is started here. With `at_once` all further engines load at the same time, else one after
    the other; with `apart` (they are on hosts of their own) none waits for the first. `kind` is
    what log lines call a member."""

    def __init__(
        self,
        configs: Mapping[str, EngineConfig],
        make_client: Callable[[str, EngineConfig], MemberClient],
        *,
        kind: str,
        at_once: bool = False,
        apart: bool = False,
    ) -> None:
        self._configs = dict(configs)
        self._make_client = make_client
        self._kind = kind
        self._at_once = at_once or apart
        self._is_apart = apart
        self.names = tuple(configs)
        self.first = make_client(self.names[0], self._configs[self.names[0]])
        self.clients = {self.names[0]: self.first}
        self._added: set[str] = set()  # after the start: each measures what is free then
        self._is_wanted = True  # not unloaded, and not closed
        self._loading: asyncio.Task[None] | None = None

    @property
    def is_loading_further(self) -> bool:
        return self._loading is not None and not self._loading.done()

    def spawn(self) -> None:
        """Start the first engine at once. Needs no event loop."""
        self.first.spawn()

    async def start(self) -> None:
        """Take charge of the first engine; the others follow once it is ready. Raises
        ModelLoadError."""
        await self.first.start()
        self.load_further()

    async def abort(self, request_id: str) -> bool:
        for client in tuple(self.clients.values()):
            if await client.abort(request_id):
                return True
        return False

    async def drain(self, timeout_s: float) -> bool:
        drained = (client.drain(timeout_s) for client in tuple(self.clients.values()))
        return all(await asyncio.gather(*drained))

    async def unload(self, timeout_s: float) -> None:
        self._is_wanted = False
        clients = tuple(self.clients.values())
        await asyncio.gather(*(client.unload(timeout_s) for client in clients))
        await self._end_of_loading()

    async def load(self) -> None:
        """Return when the first engine is ready; the others follow."""
        self._is_wanted = True
        if self._is_apart:
            self.load_further()
        await self.first.load()
        self.load_further()

    async def close(self) -> None:
        self._is_wanted = False
        await asyncio.gather(*(client.close() for client in tuple(self.clients.values())))
        await self._end_of_loading()

    async def replace(self, name: str) -> None:
        """A new client in the place of one whose engine will not come back. Returns when it is
        ready; raises what keeps it from that."""
        await self.clients[name].close()
        is_first = self.clients.pop(name) is self.first
        try:
            await self._load_one(name)
        finally:
            if is_first:
                self.first = self.clients[name]

    async def add(self, name: str, config: EngineConfig) -> None:
        """A further member; return when it is ready. Raises what keeps it from that, and NotReady
        if the group is unloaded; then it is no member."""
        self._configs[name] = config
        self.names = (*self.names, name)
        self._added.add(name)
        try:
            if not self._is_wanted:
                raise NotReady("The model is unloaded; load it first.", 5.0)
            await self._load_one(name)
        except BaseException:
            await self.remove(name)
            raise

    async def remove(self, name: str) -> None:
        """End a member for good; there are others."""
        self.names = tuple(one for one in self.names if one != name)
        self._added.discard(name)
        del self._configs[name]
        client = self.clients.pop(name, None)
        if client is self.first:
            self.first = next(self.clients[one] for one in self.names if one in self.clients)
        if client is not None:
            await client.close()

    def want(self) -> None:
        """After `unload`: its engines are to be loaded again, by whoever says this."""
        self._is_wanted = True

    def load_further(self) -> None:
        """Load what has not been loaded yet, as soon as the first engine is ready."""
        if not self.is_loading_further:
            self._loading = asyncio.get_running_loop().create_task(self._load_others())

    async def _end_of_loading(self) -> None:
        """It ends by itself: the engine that it waits for has just been ended."""
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)

    async def _load_others(self) -> None:
        """After the first one, which is waited for unless they are apart."""
        try:
            if not self._is_apart:
                await self.first.wait_ready()
        except NovaCronError:
            return  # the server ends, or the model was unloaded
        others = self.names[1:]
        if self._at_once:
            await asyncio.gather(*map(self._try_to_load, others))
            return
        for name in others:  # each packs weights
            await self._try_to_load(name)

    async def _try_to_load(self, name: str) -> None:
        if not self._is_wanted:
            return
        try:
            await self._load_one(name)
        except NovaCronError as error:
            if self._is_wanted:
                logger.error("%s %s is not served: %s", self._kind, name, error)
        else:
            logger.info("%s %s is ready beside %s", self._kind, name, self.names[0])

    def _measured_bytes(self) -> int | None:
        """What the first engine found free on the device, once it has been loaded."""
        try:
            return self.first.spec.device_free_bytes
        except NotReady:
            return None

    async def _load_one(self, name: str) -> None:
        client = self.clients.get(name)
        if client is not None:
            await client.load()
            return
        config = self._configs[name]
        free_bytes = self._measured_bytes()
        if free_bytes is not None and name not in self._added:
            config = config.after_measuring(free_bytes)
        client = self.clients[name] = self._make_client(name, config)
        await client.start()
        await client.wait_ready()
