"""VariantsClient: several precisions of one model, each with an engine of its own, as one client.

A request goes to the variant that it names, or to the one that VariantSwitch has chosen for all
others. The main variant is loaded first, and stands for the server: it is ready when that is, and
ends with it. A further one that cannot be loaded, or dies, is missing and nothing else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from novacron.config.engine import EngineConfig, WatchConfig
from novacron.engine.client import (
    DrainOptions,
    EngineClient,
    EngineState,
    NodeStatus,
    ReplicaStatus,
    VariantStatus,
    status_of,
)
from novacron.engine.engine_group import EngineGroup, MemberClient
from novacron.engine.tokenization import Tokenizer
from novacron.engine.variant_engines import VariantEngine
from novacron.engine.variant_switch import Reading, VariantSwitch, serving
from novacron.engine.watched_answers import WatchedAnswers
from novacron.errors import InvalidRequest, NotReady, ReplicaNotFound, Unsupported
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import (
    EngineOutput,
    EngineStats,
    ModelSpec,
    RequestOutput,
    sum_of,
)
from novacron.records.request import Request

logger = logging.getLogger(__name__)


class VariantsClient:
    """Implements EngineClient. `variants`: the main one first; `make_client` makes the client of
    one of them, which is started here."""

    def __init__(
        self,
        variants: tuple[VariantEngine, ...],
        make_client: Callable[[EngineConfig], MemberClient],
        watch: WatchConfig,
    ) -> None:
        self._group = EngineGroup(
            {variant.name: variant.config for variant in variants},
            lambda name, config: make_client(config),
            kind="variant",
        )
        self._names = self._group.names
        self._main = self._group.first
        self._clients = self._group.clients
        self._switch = VariantSwitch(watch.quality_floor, self._names[0])
        self._share = watch.quality_watch
        self._num_left: Counter[str] = Counter()
        self._fineness: dict[str, tuple[float, float]] = {}  # of those that were loaded once

    @property
    def state(self) -> EngineState:
        return self._main.state

    @property
    def loading_progress(self) -> tuple[str, float]:
        return self._main.loading_progress

    @property
    def spec(self) -> ModelSpec:
        return self._main.spec

    @property
    def tokenizer(self) -> Tokenizer:
        return self._main.tokenizer

    @property
    def stats(self) -> EngineStats:
        return sum_of([client.stats for client in self._clients.values()])

    @property
    def num_restarts(self) -> int:
        return sum(client.num_restarts for client in self._clients.values())

    @property
    def engine_pid(self) -> int | None:
        return self._main.engine_pid

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        default = self._default()
        return tuple(
            _not_begun(name, self._main.state)
            if client is None
            else status_of(client, name, is_default=name == default, num_left=self._num_left[name])
            for name, client in ((name, self._clients.get(name)) for name in self._names)
        )

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        """Named after their variants."""
        return tuple(
            replace(one, replica_id=_replica_id(name, client, one))
            for name, client in self._clients.items()
            for one in client.replicas
        )

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        return ()

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._main.on_state_change(callback)

    def spawn(self) -> None:
        """Start the main variant's engine at once. Needs no event loop."""
        self._group.spawn()

    async def start(self) -> None:
        """Take charge of the main engine; the others follow once it is ready. Raises
        ModelLoadError."""
        await self._group.start()

    async def wait_ready(self) -> None:
        await self._main.wait_ready()

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        name = requests[0].variant or self._default()
        client = self._client_of(name)
        answers = self._answers_to_score(name, requests)
        async with aclosing(client.generate(requests)) as outputs:
            async for output in outputs:
                if answers is not None:
                    self._have_scored(answers, output)
                yield output

    async def abort(self, request_id: str) -> bool:
        return await self._group.abort(request_id)

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        return await self._client_of(variant or self._default()).ask(order)

    async def drain(self, timeout_s: float) -> bool:
        return await self._group.drain(timeout_s)

    async def unload(self, timeout_s: float) -> None:
        await self._group.unload(timeout_s)

    async def load(self) -> None:
        """Return when the main variant is ready; the others follow."""
        await self._group.load()

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        client, inner_id = self._replica(replica_id)
        return await client.drain_replica(inner_id, timeout_s, options)

    async def resume_replica(self, replica_id: str) -> None:
        client, inner_id = self._replica(replica_id)
        await client.resume_replica(inner_id)

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        raise Unsupported(
            "A server with variants keeps as many engines of each as it was started with. Start "
            "one for each precision to change their number while they run."
        )

    async def close(self) -> None:
        await self._group.close()

    def _replica(self, replica_id: str) -> tuple[MemberClient, str]:
        """Its client, and what that calls it. Raises ReplicaNotFound."""
        known = {
            _replica_id(name, client, one): (client, one.replica_id)
            for name, client in self._clients.items()
            for one in client.replicas
        }
        if replica_id not in known:
            raise ReplicaNotFound(replica_id, tuple(known))
        return known[replica_id]

    def _client_of(self, name: str) -> MemberClient:
        client = self._clients.get(name)
        if client is not None:
            return client
        if name in self._names:
            raise NotReady(f"The variant {name} is not loaded yet.")
        raise InvalidRequest(
            f"There is no variant '{name}' of the model. There are {', '.join(self._names)}.",
            param="quantization",
        )

    def _default(self) -> str:
        """The variant for requests that name none, the switch asked first."""
        ladder = self._ladder()
        switch = self._switch.observe(ladder)
        if switch is not None:
            self._num_left[switch.left] += self._switch.left >= {switch.left}
            logger.warning(
                "variant switch: new requests go to %s instead of %s: %s",
                switch.entered, switch.left, switch.reason,
            )  # fmt: skip
        return serving(ladder, self._switch.choice)

    def _ladder(self) -> list[Reading]:
        """The main variant and the finer ones, as far as they have been loaded, the finest last."""
        main, known = self._names[0], self._fineness
        for name in self._clients.keys() - known.keys():
            spec = status_of(self._clients[name], name).spec
            if spec is not None:
                known[name] = spec.fineness
        finer = [name for name in known if main in known and known[name] > known[main]]
        return [self._reading(name) for name in (main, *sorted(finer, key=known.__getitem__))]

    def _reading(self, name: str) -> Reading:
        client = self._clients[name]
        is_ready, watch = client.state is EngineState.READY, client.stats.watch
        if watch is None:
            return Reading(name, is_ready)
        return Reading(name, is_ready, watch.quality, watch.num_scored)

    def _answers_to_score(self, name: str, requests: tuple[Request, ...]) -> WatchedAnswers | None:
        """None unless others are to score what `name` answers: those that new requests have left,
        which hear of nothing else that could show their recovery."""
        if not self._switch.left - {name}:
            return None
        answers = WatchedAnswers(self._share)
        for request in requests:
            answers.begin(request)
        return answers

    def _have_scored(self, answers: WatchedAnswers, output: RequestOutput) -> None:
        news = EngineOutput(
            request_id=output.request_id,
            new_token_ids=output.token_ids,
            finish_reason=output.finish_reason,
        )
        for answer in answers.follow((news,)):
            for left in self._switch.left:
                self._clients[left].score(answer)


def _replica_id(variant: str, client: EngineClient, one: ReplicaStatus) -> str:
    """That of the only replica of a variant is the variant's name."""
    return variant if len(client.replicas) == 1 else f"{variant}-{one.replica_id}"


def _not_begun(name: str, state_of_main: EngineState) -> VariantStatus:
    """A variant whose engine waits for its turn."""
    is_over = state_of_main in (EngineState.DEAD, EngineState.UNLOADED)
    return VariantStatus(
        name=name,
        state=state_of_main if is_over else EngineState.LOADING,
        spec=None,
        stats=EngineStats(),
        num_restarts=0,
        engine_pid=None,
        is_default=False,
    )
