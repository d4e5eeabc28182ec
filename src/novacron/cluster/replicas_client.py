"""ReplicasClient: several equal engines as one client, among which requests are shared out.

The decision is router.py's, what it knows CallRouter's; this acts. A replica that dies is left out
at once and comes back when it is ready; what ran on it raises EngineDead. A call of several prompts
is spread over replicas, the longest first; copies of a prompt stay together.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import msgspec

from novacron.cluster.cache_answers import merge_answers
from novacron.cluster.call_router import CallRouter
from novacron.cluster.given_pins import GivenPins
from novacron.cluster.merged_outputs import merged
from novacron.cluster.replica import Replica, not_begun
from novacron.cluster.replica_count import names_to_come, names_to_go
from novacron.cluster.replica_totals import GoneReplicas
from novacron.config.engine import EngineConfig
from novacron.config.model import MOST_REPLICAS
from novacron.config.privacy import may_be_in
from novacron.engine.admission import not_allowed_in, with_seed
from novacron.engine.client import (
    DrainOptions,
    EngineState,
    NodeStatus,
    ReplicaStatus,
    VariantStatus,
    status_of,
)
from novacron.engine.engine_group import EngineGroup, MemberClient
from novacron.engine.replica_drain import drain_client
from novacron.engine.request_streams import id_in_use
from novacron.engine.tokenization import Tokenizer
from novacron.errors import (
    LastReplica,
    NotReady,
    NovaCronError,
    Overloaded,
    ReplicaNotFound,
    Unsupported,
)
from novacron.quality.document import Document
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.request import Request
from novacron.records.routing import RoutingDecision

_BEST_FIRST = (
    EngineState.READY, EngineState.LOADING, EngineState.DRAINING, EngineState.UNLOADED,
    EngineState.DEAD,
)  # fmt: skip

_SUMS_LAST_S: Final = 0.1

logger = logging.getLogger(__name__)


class ReplicasClient:
    """Implements EngineClient and MemberClient. `config.model.data_parallel_size` engines, each of
    which knows by the same settings how many share the machine; `make_client` makes the client of
    one by its name, which is started here. `apart`: they are on hosts of their own. `on_decision`
    gets every decision of where a call goes. `find_nodes` tells the hosts that replicas may be
    placed on. There can be `most` of them; None: any number."""

    def __init__(
        self,
        config: EngineConfig,
        make_client: Callable[[str, EngineConfig], MemberClient],
        *,
        apart: bool = False,
        on_decision: Callable[[RoutingDecision], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        find_nodes: Callable[[], tuple[NodeStatus, ...]] = tuple,
        most: int | None = None,
    ) -> None:
        self._config = config
        self._most = MOST_REPLICAS if most is None else most
        self._scaling = asyncio.Lock()
        self._gone = GoneReplicas()
        self._find_nodes = find_nodes
        self._make_client = make_client
        self._router = CallRouter(
            knows_prefixes=config.cache.enable_prefix_caching, on_decision=on_decision
        )
        self._replicas: dict[str, Replica] = {}  # that have been begun
        self._state = EngineState.LOADING
        self._is_draining = False
        self._is_not_loading = asyncio.Event()
        self._callbacks: list[Callable[[EngineState], None]] = []
        self._live_ids: set[str] = set()
        self._seeds = random.Random(config.model.seed)
        self._impaired: set[str] = set()  # that replace ranks at the moment
        self._pins = GivenPins()
        self._clock = clock
        self._variants: tuple[VariantStatus, ...] = ()
        self._summed_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        names = names_to_come((), config.model.data_parallel_size)
        self._group = EngineGroup(
            dict.fromkeys(names, config), self._make, kind="replica", at_once=True, apart=apart
        )
        self._note_change()

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def loading_progress(self) -> tuple[str, float]:
        return self._best().client.loading_progress

    @property
    def spec(self) -> ModelSpec:
        """That of one replica."""
        for one in self._replicas.values():
            spec = status_of(one.client, one.replica_id).spec
            if spec is not None:
                return spec
        return self._group.first.spec

    @property
    def tokenizer(self) -> Tokenizer:
        return self._group.first.tokenizer

    @property
    def stats(self) -> EngineStats:
        return self._gone.with_those([one.stats for one in self._replicas.values()])

    @property
    def num_restarts(self) -> int:
        present = sum(one.client.num_restarts for one in self._replicas.values())
        return present + self._gone.num_restarts

    @property
    def engine_pid(self) -> int | None:
        return self._best().client.engine_pid

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        """Its figures may be some moments old: it is asked for with every call, and adding up those
        of many replicas takes longer than all else."""
        now_s = self._clock()
        if not self._variants or now_s - self._summed_s > _SUMS_LAST_S:
            self._variants = (status_of(self, self._group.first.variants[0].name),)
            self._summed_s = now_s
        return self._variants

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        return tuple(
            self._replicas[name].status() if name in self._replicas else not_begun(name, self.state)
            for name in self._group.names
        )

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        return self._find_nodes()

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._callbacks.append(callback)

    def on_rank_loss(self, callback: Callable[[], None]) -> None:
        """Never called: there are others then, or nowhere to go."""

    def hand_over(self) -> None:
        for one in self._ready():
            one.client.hand_over()

    def spawn(self) -> None:
        """Start the first engine at once. Needs no event loop."""
        self._group.spawn()

    async def start(self) -> None:
        """Take charge of the first engine; the others follow once it is ready. Raises
        ModelLoadError."""
        await self._group.start()

    async def wait_ready(self) -> None:
        while self._state is EngineState.LOADING:
            await self._is_not_loading.wait()
        if self._state is not EngineState.READY:
            await self._best().client.wait_ready()

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        if self._is_draining:
            raise NotReady("The server is finishing its work before it ends.", 5.0)
        for request in requests:
            if request.request_id in self._live_ids:
                raise id_in_use(request.request_id)
        requests = tuple(with_seed(request, self._seeds) for request in requests)
        ids = {request.request_id for request in requests}
        self._live_ids |= ids
        try:
            streams = [self._run(requests, places) for places in _by_prompt(requests)]
            async with aclosing(merged(streams)) as outputs:
                async for output in outputs:
                    yield output
        finally:
            self._live_ids -= ids

    async def abort(self, request_id: str) -> bool:
        return await self._group.abort(request_id)

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        """Of all replicas that are ready. The first decides whether it is refused: they are equal.
        Whoever is not ready is given the pins later."""
        first, *others = self._ready() or [self._best()]
        answers = [await first.client.ask(order)]
        found = await asyncio.gather(
            *(one.client.ask(order) for one in others), return_exceptions=True
        )
        for one, answer in zip(others, found, strict=True):
            if isinstance(answer, BaseException):
                logger.warning(
                    "%s did not follow an order to its cache: %s", one.replica_id, answer
                )
            else:
                answers.append(answer)
        self._pins.note(order)
        return merge_answers(answers)

    def score(self, answer: Document) -> None:
        for one in self._ready()[:1]:
            one.client.score(answer)

    async def drain(self, timeout_s: float) -> bool:
        self._is_draining = True
        self._note_change()
        return await self._group.drain(timeout_s)

    async def unload(self, timeout_s: float) -> None:
        await self._group.unload(timeout_s)

    async def load(self) -> None:
        """Return when all replicas that can be loaded are ready. Raises the reason if none is."""
        self._is_draining = False
        self._group.want()
        begun = [one.client.load() for one in self._replicas.values()]
        await asyncio.gather(*begun, return_exceptions=True)
        await self.wait_ready()
        self._group.load_further()

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        one = self._replica(replica_id)
        if self._ready() == [one] and not options.force:
            raise LastReplica(
                f"{replica_id} is the only replica that is ready: without it, requests would be "
                "refused. Wait for another one, or force it."
            )
        logger.info("%s is being drained", replica_id)
        finished = await drain_client(one.client, timeout_s)
        logger.info("%s has been drained", replica_id)
        if options.restart:
            await self.resume_replica(replica_id)
        return finished

    async def resume_replica(self, replica_id: str) -> None:
        one = self._replica(replica_id)
        if one.client.state is EngineState.DEAD:
            await self._group.replace(replica_id)
        else:
            await one.client.load()
        self._group.load_further()

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        if not 1 <= num_replicas <= self._most:
            raise Unsupported(f"This server can have 1 to {self._most} replicas.")
        async with self._scaling:
            if not self._ready():
                raise NotReady("No replica is ready; their number cannot change now.", 5.0)
            names = self._group.names
            await self._add(names_to_come(names, num_replicas), num_replicas)
            states = [(one.replica_id, one.state) for one in self.replicas]
            return await self._end(names_to_go(states, num_replicas), timeout_s)

    async def close(self) -> None:
        await self._group.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make(self, name: str, config: EngineConfig) -> MemberClient:
        client = self._make_client(name, config)
        self._replicas[name] = Replica(
            name,
            client,
            num_replicas=config.model.data_parallel_size,
            max_num_seqs=config.scheduler.max_num_seqs,
            on_change=self._note_change,
            successor_of=self._replicas.get(name),
        )
        client.on_state_change(lambda state: self._teach_pins(name, state))
        client.on_rank_loss(lambda: self._see_ranks(name))
        client.on_state_change(lambda _: self._impaired.discard(name))
        return client

    async def _add(self, names: Sequence[str], num_replicas: int) -> None:
        """Those that load are routed to as soon as they are ready, with all that they share."""
        config = replace(
            self._config, model=replace(self._config.model, data_parallel_size=num_replicas)
        )
        adding = (self._group.add(name, config) for name in names)
        errors = await asyncio.gather(*adding, return_exceptions=True)
        for name, error in zip(names, errors, strict=True):
            if error is None:
                logger.info("%s is ready: there are %d", name, len(self._group.names))
            else:
                self._forget(name)
        for error in errors:
            if error is not None:
                raise error

    async def _end(self, names: Sequence[str], timeout_s: float) -> bool:
        """Drained, then ended."""
        begun = [self._replicas[name].client for name in names if name in self._replicas]
        finished = await asyncio.gather(*(drain_client(one, timeout_s) for one in begun))
        for name in names:
            if name in self._group.names:
                await self._group.remove(name)
            self._forget(name)
            logger.info("%s has ended: there are %d", name, len(self._group.names))
        return all(finished)

    def _forget(self, name: str) -> None:
        """What it has counted stays counted."""
        one = self._replicas.pop(name, None)
        if one is not None:
            self._gone.add(one.stats, one.client.num_restarts)
        self._impaired.discard(name)
        self._note_change()

    def _replica(self, replica_id: str) -> Replica:
        """Raises ReplicaNotFound; NotReady for one that waits for its turn."""
        if replica_id not in self._group.names:
            raise ReplicaNotFound(replica_id, self._group.names)
        if replica_id not in self._replicas:
            raise NotReady(f"{replica_id} has not been started yet.")
        return self._replicas[replica_id]

    def _ready(self) -> list[Replica]:
        return [one for one in self._replicas.values() if one.is_ready]

    def _best(self) -> Replica:
        """One that is in the state which counts for all."""
        return min(self._replicas.values(), key=lambda one: _BEST_FIRST.index(one.client.state))

    def _note_change(self) -> None:
        state = self._best().client.state
        if self._is_draining and state in (EngineState.READY, EngineState.LOADING):
            state = EngineState.DRAINING
        if state is not EngineState.LOADING:
            self._is_not_loading.set()
        else:
            self._is_not_loading.clear()
        self._variants = ()
        if state is EngineState.READY:
            self._router.block_size = self.spec.block_size
        if state is not self._state:
            self._state = state
            for callback in self._callbacks:
                callback(state)

    def _see_ranks(self, name: str) -> None:
        """A replica that waits for a rank to be replaced does not compute. Others go on with what
        it runs, if there are any."""
        client = self._replicas[name].client
        if not client.stats.lost_ranks:
            self._impaired.discard(name)
            return
        self._impaired.add(name)
        if self._avoided(self._replicas.values()):
            logger.warning("%s replaces ranks: others go on with its requests", name)
            client.hand_over()

    def _avoided(self, replicas: Iterable[Replica]) -> set[str]:
        """Those of `replicas` that new requests had better not go to, because there are others."""
        ready = {one.replica_id for one in self._ready()} & {one.replica_id for one in replicas}
        return self._impaired if ready - self._impaired else set()

    async def _run(
        self, requests: Sequence[Request], places: Sequence[int]
    ) -> AsyncGenerator[RequestOutput, None]:
        """Those of `requests` at `places`, which share a prompt, on one replica. One that has no
        room, or is just leaving, is passed over."""
        mine = tuple(requests[place] for place in places)
        refused: dict[str, NovaCronError] = {}
        while True:
            allowed = self._allowed(mine[0].regions)
            routed = self._router.send(allowed, mine, refused.keys() | self._avoided(allowed))
            if routed is None:
                if refused:
                    raise next(iter(refused.values())).with_traceback(None)
                if mine[0].regions:
                    raise NotReady(
                        "No engine in a region where this tenant's data may be is ready."
                    )
                break
            has_begun = False
            try:
                async with aclosing(routed.replica.client.generate(mine)) as outputs:
                    async for output in outputs:
                        has_begun = True
                        routed.see(output)
                        yield _moved(output, places[output.index])
                return
            except (Overloaded, NotReady) as error:
                if has_begun:
                    raise
                refused[routed.replica.replica_id] = error
            finally:
                routed.end()
        async with aclosing(self._best().client.generate(mine)) as outputs:  # it says why not
            async for output in outputs:
                yield _moved(output, places[output.index])

    def _allowed(self, regions: tuple[str, ...]) -> list[Replica]:
        """The replicas that requests may be on. Raises Forbidden if there is none, and all have
        said where they are."""
        if not regions:
            return list(self._replicas.values())
        specs = {one.replica_id: one.status().spec for one in self._replicas.values()}
        told = {name: spec.region for name, spec in specs.items() if spec is not None}
        allowed = {name for name, region in told.items() if may_be_in(region, regions)}
        if not allowed and len(told) == len(self._group.names):
            raise not_allowed_in(", ".join(sorted(set(told.values()))), regions)
        return [one for one in self._replicas.values() if one.replica_id in allowed]

    def _teach_pins(self, name: str, state: EngineState) -> None:
        """Give a replica that has just started what others were told meanwhile."""
        if state is not EngineState.READY or not self._pins:
            return
        client = self._replicas[name].client
        task = asyncio.get_running_loop().create_task(self._pins.teach(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _moved(output: RequestOutput, index: int) -> RequestOutput:
    return output if output.index == index else msgspec.structs.replace(output, index=index)


def _by_prompt(requests: Sequence[Request]) -> list[list[int]]:
    """Places of requests that share all of their tokens, together; the longest prompts first, so
    that what is left at the end to even out the load is short."""
    places: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for place, request in enumerate(requests):
        tokens = request.prompt_token_ids + request.output_token_ids
        places.setdefault((request.cache_salt, tokens), []).append(place)
    return [found for _, found in sorted(places.items(), key=lambda item: -len(item[0][1]))]
