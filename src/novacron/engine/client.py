"""EngineClient: the only handle that the gateway, the bench and LLM hold on an engine. No torch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from novacron.engine.tokenization import Tokenizer
from novacron.errors import NotReady
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.request import Request


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
        if self.state is not EngineState.READY or self.spec is None:
            return ()
        return self.stats.rank_pids or self.spec.rank_pids


class EngineClient(Protocol):
    """One model, wherever it runs, in one precision or several. All methods belong to one event
    loop. With several variants, what is said of the engine is said of the main one, and figures
    are sums."""

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
