"""PacedEngine: an engine that computes nothing and takes the time that one would.

For measuring what stands above engines, with many of them in one process. It keeps books on KV
blocks as a real engine does, computes prompts one after the other, and decodes at a pace that
depends on how many requests run. Tokens follow from the request and their position alone, so that
whoever reads them can tell whether a continued stream is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from novacron.engine.client import (
    DrainOptions,
    EngineState,
    NodeStatus,
    ReplicaStatus,
    VariantStatus,
    status_of,
)
from novacron.engine.replica_drain import (
    drain_only_replica,
    only_replica,
    resume_only_replica,
    scale_only_replica,
)
from novacron.engine.tokenization import Tokenizer
from novacron.errors import EngineDead, NotReady, Unsupported
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.quality.document import Document
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.request import FinishReason, Request

BLOCK_SIZE: Final = 16
_TOKENS_OF_AN_OUTPUT: Final = 8  # as when a fast model's tokens travel together
_VOCABULARY: Final = 50_000


@dataclass(frozen=True, kw_only=True)
class PacedConfig:
    """Seconds of a prompt token, of a running request in a step, of a step, and of a restart."""

    prefill_s: float
    row_s: float
    step_s: float
    restart_s: float
    num_blocks: int


def token_at(request: Request, position: int) -> int:
    """Of the output."""
    return (
        request.prompt_token_ids[-1] * 7919 + (request.sampling.seed or 0) + position
    ) % _VOCABULARY


class PacedEngine:
    """Implements MemberClient. `die` ends it; it is back after `restart_s`. `tokenizer` is only for
    a gateway that parses prompts above it: texts of answers are empty."""

    def __init__(self, config: PacedConfig, tokenizer: Tokenizer | None = None) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._cache = self._empty_cache()
        self._state = EngineState.READY
        self._callbacks: list[Callable[[EngineState], None]] = []
        self._live: dict[asyncio.Future[None], None] = {}  # one for each call, failed by a death
        self._num_running = 0
        self._busy_until_s = 0.0
        self._num_steps = 0.0
        self._totals = EngineStats()
        self.num_restarts = 0
        self.num_prompt_tokens = 0
        self.num_found_tokens = 0
        self.num_calls = 0
        self.spec = ModelSpec(
            name="paced",
            model_version="0" * 32,
            architecture="none",
            vocab_size=_VOCABULARY,
            hidden_size=1,
            max_model_len=2**20,
            eos_token_ids=(0,),
            dtype="float32",
            device="none",
            num_parameters=1,
            weight_bytes=1,
            num_blocks=config.num_blocks,
            block_size=BLOCK_SIZE,
            kv_cache_bytes=config.num_blocks,
        )

    engine_pid: int | None = None
    loading_progress = ("none", 1.0)

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise Unsupported("An engine that computes nothing has no tokenizer.")
        return self._tokenizer

    @property
    def stats(self) -> EngineStats:
        return self._totals

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        return (status_of(self, "none"),)

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        return only_replica(self)

    def spawn(self) -> None:
        """There is no process."""

    async def start(self) -> None:
        """It has started already."""

    def score(self, answer: Document) -> None:
        """Nothing is watched."""

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        return ()

    def on_rank_loss(self, callback: Callable[[], None]) -> None:
        """There are no ranks."""

    def hand_over(self) -> None:
        """Never asked for: see on_rank_loss."""

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._callbacks.append(callback)

    async def wait_ready(self) -> None:
        if self._state is not EngineState.READY:
            raise NotReady(f"The engine is {self._state.value}.")

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        if self._state is not EngineState.READY:
            raise NotReady(f"The engine is {self._state.value}.")
        death = asyncio.get_running_loop().create_future()
        self._live[death] = None
        self.num_calls += 1
        try:
            for index, request in enumerate(requests):
                async for output in self._compute(request, index, death):
                    yield output
        finally:
            self._live.pop(death, None)
            if not death.cancel() and not death.cancelled():
                death.exception()  # it has been heard of, or nobody listens any more

    async def _compute(
        self, request: Request, index: int, death: asyncio.Future[None]
    ) -> AsyncGenerator[RequestOutput, None]:
        config, known = self._config, request.prompt_token_ids + request.output_token_ids
        num_cached = self._take_in(known, request.cache_salt)
        work_s = (len(known) - num_cached) * config.prefill_s
        loop = asyncio.get_running_loop()
        self._busy_until_s = max(self._busy_until_s, loop.time()) + work_s
        self._num_running += 1
        self._note(num_running=self._num_running)
        try:
            await _sleep_until(self._busy_until_s, death)
            self._note(prompt_tokens=len(known) - num_cached, step_time_s=work_s)
            num_given = len(request.output_token_ids)
            most = request.sampling.max_tokens or 1
            while num_given < most:
                count = min(_TOKENS_OF_AN_OUTPUT, most - num_given)
                pace_s = config.step_s + config.row_s * self._num_running
                await _sleep_until(loop.time() + count * pace_s, death)
                steps = count / self._num_running  # others have a part in the same steps
                self._note(generation_tokens=count, num_steps=steps, step_time_s=steps * pace_s)
                positions = range(num_given, num_given + count)
                num_given += count
                yield RequestOutput(
                    request_id=request.request_id,
                    index=index,
                    token_ids=tuple(token_at(request, position) for position in positions),
                    num_prompt_tokens=len(known),
                    num_output_tokens=num_given,
                    num_cached_tokens=num_cached,
                    finish_reason=FinishReason.LENGTH if num_given == most else None,
                )
        finally:
            self._num_running -= 1
            self._note(num_running=self._num_running)

    def _take_in(self, tokens: tuple[int, ...], salt: str) -> int:
        """Find what is cached of these tokens, and cache all of them. Returns how many were."""
        cache = self._cache
        table = cache.open_table(salt)
        hit = cache.find_prefix(table, tokens)
        cache.adopt(table, hit)
        cache.extend(table, tokens, len(tokens))
        cache.free(table)
        self.num_prompt_tokens += len(tokens)
        self.num_found_tokens += hit.num_tokens
        return hit.num_tokens

    def _note(
        self,
        *,
        num_running: int | None = None,
        prompt_tokens: int = 0,
        generation_tokens: int = 0,
        num_steps: float = 0.0,
        step_time_s: float = 0.0,
    ) -> None:
        old = self._totals
        self._num_steps += num_steps
        self._totals = EngineStats(
            num_running=old.num_running if num_running is None else num_running,
            num_blocks=self._config.num_blocks,
            num_steps=int(self._num_steps),
            prompt_tokens=old.prompt_tokens + prompt_tokens,
            generation_tokens=old.generation_tokens + generation_tokens,
            step_time_s=old.step_time_s + step_time_s,
        )

    def die(self) -> None:
        """Whatever runs fails, and what was cached is gone."""
        error = EngineDead("The engine was ended, as was asked for.")
        for death in tuple(self._live):
            if not death.done():
                death.set_exception(error)
        self.num_restarts += 1
        self._cache, self._busy_until_s = self._empty_cache(), 0.0
        self._num_steps, self._totals = 0.0, EngineStats()
        self._enter(EngineState.LOADING)
        loop = asyncio.get_running_loop()
        loop.call_later(self._config.restart_s, self._enter, EngineState.READY)

    def _enter(self, state: EngineState) -> None:
        self._state = state
        for callback in self._callbacks:
            callback(state)

    def _empty_cache(self) -> KVCacheManager:
        return KVCacheManager(self._config.num_blocks, BLOCK_SIZE, model_version="", kv_dtype="")

    async def abort(self, request_id: str) -> bool:
        return False

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        raise Unsupported("An engine that computes nothing takes no orders.")

    async def drain(self, timeout_s: float) -> bool:
        return True

    async def unload(self, timeout_s: float) -> None:
        self._enter(EngineState.UNLOADED)

    async def load(self) -> None:
        self._enter(EngineState.READY)

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        return await drain_only_replica(self, replica_id, timeout_s, options)

    async def resume_replica(self, replica_id: str) -> None:
        await resume_only_replica(self, replica_id)

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        return await scale_only_replica(num_replicas)

    async def close(self) -> None:
        self._enter(EngineState.DEAD)


async def _sleep_until(time_s: float, death: asyncio.Future[None]) -> None:
    """Raises what `death` is failed with meanwhile."""
    seconds = max(0.0, time_s - asyncio.get_running_loop().time())
    if seconds == 0.0 and not death.done():
        await asyncio.sleep(0)
    done, _ = await asyncio.wait((death,), timeout=seconds)
    if done:
        death.result()
