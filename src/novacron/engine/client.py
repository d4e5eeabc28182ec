"""EngineClient: the only handle that the gateway, the bench and LLM hold on an engine. No torch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from novacron.engine.tokenization import Tokenizer
from novacron.errors import NotReady
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.request import Request
from novacron.records.routing import RoutingDecision


class EngineState(StrEnum):
    LOADING = "loading"  # first start, or restarting after a death
    READY = "ready"
    DRAINING = "draining"  # finishing what runs, refusing new work
    UNLOADED = "unloaded"  # on request; `load` brings it back
    DEAD = "dead"  # will not come back: start-up failed, or it died too often


@dataclass(frozen=True, kw_only=True)
class VariantStatus:
    """One loaded precision of the model, and the engine that computes in it, at this moment.

    `spec` is None until it was loaded once. `is_default`: requests that ask for nothing go to it.
    `num_left`: how often they stopped going there because its quality fell below the floor.
    """

    name: str
    state: EngineState
    spec: ModelSpec | None
    stats: EngineStats
    num_restarts: int
    engine_pid: int | None
    is_default: bool
    num_left: int = 0

    @property
    def rank_pids(self) -> tuple[int, ...]:
        """Of the processes that compute with the engine's own."""
        return _rank_pids(self.state, self.spec, self.stats)


@dataclass(frozen=True, kw_only=True)
class ReplicaStatus:
    """One engine among those that share the requests, at this moment.

    `epoch` counts its engine processes from 0. `num_live` requests were sent to it and have not
    ended; `queued_tokens` are those of their prompts that it has yet to compute, as far as is known
    here. `num_routed`: how many calls it was chosen for, by why; `last_decision` is the newest. Of
    prompts, `expected_reuse_tokens` were believed to be cached, and `found_reuse_tokens` were.
    """

    replica_id: str
    state: EngineState
    epoch: int
    spec: ModelSpec | None
    stats: EngineStats
    num_restarts: int
    engine_pid: int | None
    num_live: int = 0
    queued_tokens: int = 0
    num_routed: Mapping[str, int] = field(default_factory=dict)
    last_decision: RoutingDecision | None = None
    expected_reuse_tokens: int = 0
    found_reuse_tokens: int = 0

    @property
    def rank_pids(self) -> tuple[int, ...]:
        """Of the processes that compute with the engine's own."""
        return _rank_pids(self.state, self.spec, self.stats)


def _rank_pids(state: EngineState, spec: ModelSpec | None, stats: EngineStats) -> tuple[int, ...]:
    if state is not EngineState.READY or spec is None:
        return ()
    return stats.rank_pids or spec.rank_pids


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """A host of the cluster that places replicas, as the cluster sees it. `num_places`: engines
    that it has room for, those it runs included."""

    name: str
    address: str
    is_alive: bool
    num_places: float


@dataclass(frozen=True, kw_only=True)
class DrainOptions:
    """`restart`: start the replica anew afterwards. `force`: also if it is the last that is
    ready."""

    restart: bool = False
    force: bool = False


class EngineClient(Protocol):
    """One model, wherever it runs, in one precision or several, by one engine for each or by
    several replicas. All methods belong to one event loop. With several variants, what is said of
    the engine is said of the main one, and figures are sums. Several replicas are in a state as
    soon as one of them is, the best state counting."""

    @property
    def state(self) -> EngineState: ...

    @property
    def loading_progress(self) -> tuple[str, float]:
        """Phase of start-up and the fraction of it that is done."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model. Raises NotReady before the first load has ended."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises NotReady before it is loaded."""
        ...

    @property
    def stats(self) -> EngineStats:
        """As of the newest step; all zero before the first."""
        ...

    @property
    def num_restarts(self) -> int: ...

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        """The main one first."""
        ...

    @property
    def engine_pid(self) -> int | None:
        """Process id of the engine; None while there is no such process."""
        ...

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        """Of all variants."""
        ...

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        """Hosts that replicas may be placed on; none where nobody places them."""
        ...

    def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        """Run the requests (the n completions of one call) and yield their news as it comes.

        `index` of an output is the place of its request in `requests`. The iterator ends after the
        last request has ended. Closing it early aborts what still runs. Raises before the first
        output: PromptTooLong, InvalidRequest, Overloaded, NotReady; later: EngineDead.
        A request that the engine fails ends with FinishReason.ERROR instead of an exception. All of
        a call are of one variant.
        """
        ...

    async def abort(self, request_id: str) -> bool:
        """End a request with FinishReason.ABORT. False if it is not running (any more)."""
        ...

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        """Something about the KV cache of a variant (empty: of the one that new requests go to).

        Raises what the engine refuses it with (PinLimit, PinNotFound, InvalidRequest, Unsupported),
        NotReady and EngineDead.
        """
        ...

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None: ...

    async def wait_ready(self) -> None:
        """Return when READY; raise the reason if the engine is, or becomes, anything else than
        LOADING instead."""
        ...

    async def unload(self, timeout_s: float) -> None:
        """Drain, then free the memory of the model. Until `load`, new work raises NotReady."""
        ...

    async def load(self) -> None:
        """Bring an unloaded engine back; return when READY. Harmless when it is loaded. Waits for
        an unload that is under way."""
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work and wait for running work. True if all of it finished in time."""
        ...

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        """Send a replica no new work, wait for what it runs, and end its engine process. True if
        all of it finished in time; what did not raises EngineDead.

        Raises ReplicaNotFound, and LastReplica if no other one is ready, unless forced.
        """
        ...

    async def resume_replica(self, replica_id: str) -> None:
        """Start the engine process of a drained replica, or of one that died too often; return when
        it is READY. Harmless when it is. Raises ReplicaNotFound, or what keeps it from loading."""
        ...

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        """Have so many replicas; return when the new ones are READY, or those that go have ended,
        after what they run, or `timeout_s`. True if all of it finished in time; what did not raises
        EngineDead.

        Raises Unsupported where their number is fixed, NotReady while none serves, and what keeps a
        new one from loading: then there are as many as before, and those that could be loaded.
        """
        ...

    async def close(self) -> None:
        """End the engine for good; whatever still runs raises EngineDead."""
        ...


def status_of(
    client: EngineClient, name: str, *, is_default: bool = True, num_left: int = 0
) -> VariantStatus:
    """Of a client whose engine is one variant."""
    try:
        spec = client.spec
    except NotReady:
        spec = None
    return VariantStatus(
        name=name,
        state=client.state,
        spec=spec,
        stats=client.stats,
        num_restarts=client.num_restarts,
        engine_pid=client.engine_pid,
        is_default=is_default,
        num_left=num_left,
    )
