"""FakeEngineClient: an EngineClient that recites instead of computing.

For tests of whatever stands on EngineClient, and for measuring what HTTP costs. Admission,
detokenization, stop strings, slow readers and ids are the real client's own code; only the tokens
are made up: every step gives each request the next token of the text that `reply` wrote for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from novacron import errors
from novacron.engine.admission import admit
from novacron.engine.client import (
    DrainOptions,
    EngineState,
    NodeStatus,
    ReplicaStatus,
    VariantStatus,
    status_of,
)
from novacron.engine.questions import raise_if_refused
from novacron.engine.replica_drain import (
    drain_only_replica,
    only_replica,
    resume_only_replica,
    scale_only_replica,
)
from novacron.engine.request_streams import RequestStreams
from novacron.engine.tokenization import Tokenizer
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.kv_tiers.pins import PinLimits, Pins
from novacron.quality.document import Document
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import (
    EngineOutput,
    EngineStats,
    ModelSpec,
    RequestOutput,
    TierSpec,
    WatchStats,
)
from novacron.records.request import FinishReason, Request
from novacron.records.step import PositionLogprobs
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.tiered_prefixes import TieredPrefixes
from novacron.testing.tiny_tokenizers import byte_level, write_folder

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BLOCK_SIZE = 16


def fake_tokenizer(folder: Path, chat_template: str = CHAT_TEMPLATE) -> Tokenizer:
    """A small real tokenizer with a ChatML template, its files written into `folder`."""
    config = {"eos_token": "<|im_end|>", "chat_template": chat_template}
    return Tokenizer.load(write_folder(folder, byte_level(), tokenizer_config=config))


@dataclass
class _Recital:
    """The tokens that one request still gets."""

    request: Request
    token_ids: list[int]
    num_given: int = 0  # those of a continued stream included
    is_first: bool = True

    def next_output(self, eos_token_id: int) -> EngineOutput:
        sampling = self.request.sampling
        at_end = self.num_given == len(self.token_ids)
        must_go_on = sampling.ignore_eos or self.num_given < sampling.min_tokens
        if at_end and not must_go_on:
            token_id, reason = eos_token_id, FinishReason.STOP
        else:
            token_id = self.token_ids[self.num_given % len(self.token_ids)]
            reason = None
        self.num_given += 1
        if reason is None and token_id in sampling.stop_token_ids:
            reason = FinishReason.STOP
        if reason is None and self.num_given == sampling.max_tokens:
            reason = FinishReason.LENGTH
        is_first, self.is_first = self.is_first, False
        return EngineOutput(
            request_id=self.request.request_id,
            new_token_ids=(token_id,),
            logprobs=_logprobs((token_id,), sampling.logprobs),
            prompt_logprobs=self._prompt_logprobs() if is_first else (),
            finish_reason=reason,
            stop_token_id=token_id
            if reason is FinishReason.STOP and token_id != eos_token_id
            else None,
            first_scheduled_time_s=self.request.arrival_time_s if is_first else None,
        )

    def _prompt_logprobs(self) -> tuple[PositionLogprobs, ...]:
        return _logprobs(self.request.prompt_token_ids[1:], self.request.sampling.prompt_logprobs)


def _logprobs(token_ids: tuple[int, ...], num_top: int | None) -> tuple[PositionLogprobs, ...]:
    """The token at -0.5, and beside it the lowest token ids with ever smaller numbers."""
    if num_top is None:
        return ()
    top = tuple(range(num_top))
    values = (-0.5, *(-1.0 - place for place in top))
    return tuple(PositionLogprobs((token_id, *top), values, 1) for token_id in token_ids)


def _desk(spec: ModelSpec) -> CacheDesk:
    """The engine's own books about its cache, over tiers that never get a block."""
    kv_cache = KVCacheManager(
        spec.num_blocks, spec.block_size, model_version=spec.model_version, kv_dtype="float32"
    )
    pins = Pins(PinLimits(most_blocks=64, most_blocks_of_scope=32))
    tier = TierSpec(kind="ram", capacity_bytes=1 << 20)
    tiers = TieredPrefixes(kv_cache, (tier,), pins=pins)
    return CacheDesk(kv_cache, tiers, Sessions(), block_bytes=1024)


class FakeEngineClient:
    """Implements EngineClient in this process.

    `step_s` is the duration of a step, 0 to yield to the loop only; `num_tokens_per_step` makes
    steps deliver more at once. `fail_with` makes requests end with ERROR. `submitted` keeps all
    requests that were accepted, `aborted` the ids that a caller gave up or cancelled, `to_score`
    the answers that a watch was to score; `watch` is what such a watch says.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        reply: Callable[[Request], str] = lambda request: "The answer is 42.",
        step_s: float = 0.0,
        max_model_len: int = 2048,
        max_live: int = 1024,
        state: EngineState = EngineState.READY,
        quantization: str = "none",
        weight_bytes: int = 4,
    ) -> None:
        self.reply = reply
        self.step_s = step_s
        self.max_live = max_live
        self.fail_with: str | None = None
        self.submitted: list[Request] = []
        self.to_score: list[Document] = []
        self.watch: WatchStats | None = None
        self.aborted: list[str] = []
        self.num_restarts = 0
        self.engine_pid: int | None = None
        self.loading_progress = ("weights", 0.5)
        self._tokenizer = tokenizer
        self._state = state
        self._settled = asyncio.Event()
        self._failure: errors.NovaCronError | None = None
        self._streams = RequestStreams()
        self._recitals: dict[str, _Recital] = {}
        self._steps: asyncio.Task[None] | None = None
        self._seeds = random.Random(0)
        self._callbacks: list[Callable[[EngineState], None]] = []
        self._loss_callbacks: list[Callable[[], None]] = []
        self._lost_ranks: tuple[int, ...] = ()
        self.enter(state)
        self._num_steps = 0
        self.asked: list[CacheOrder] = []
        self._num_prompt_tokens = 0
        self._num_generated_tokens = 0
        self._spec = ModelSpec(
            name="fake",
            model_version="0" * 32,
            architecture="FakeForCausalLM",
            vocab_size=tokenizer.vocab_size,
            hidden_size=8,
            max_model_len=max_model_len,
            eos_token_ids=tokenizer.eos_token_ids,
            dtype="float32",
            quantization=quantization,
            device="cpu",
            num_parameters=1,
            weight_bytes=weight_bytes,
            num_blocks=64,
            block_size=_BLOCK_SIZE,
            kv_cache_bytes=64 * _BLOCK_SIZE,
            load_phases_s={"weights": 0.25},
        )
        self._desk = _desk(self._spec)

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def spec(self) -> ModelSpec:
        if self._state is EngineState.LOADING:
            raise errors.NotReady("The model is loading.")
        return self._spec

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self._recitals),
            num_blocks=self._spec.num_blocks,
            num_used_blocks=min(len(self._recitals), self._spec.num_blocks),
            num_steps=self._num_steps,
            prefix_queries_tokens=self._num_prompt_tokens,
            prompt_tokens=self._num_prompt_tokens,
            generation_tokens=self._num_generated_tokens,
            watch=self.watch,
            lost_ranks=self._lost_ranks,
        )

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        return (status_of(self, self._spec.quantization),)

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        return only_replica(self)

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        return ()

    def spawn(self) -> None:
        """There is no process."""

    async def start(self) -> None:
        """It has started already."""

    def score(self, answer: Document) -> None:
        self.to_score.append(answer)

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        if self._state is not EngineState.READY:
            raise self._failure or errors.NotReady(f"The engine is {self._state.value}.")
        admitted = tuple(admit(request, self._spec, self._seeds) for request in requests)
        if len(self._streams) + len(admitted) > self.max_live:
            raise errors.Overloaded(f"The queue is full: at most {self.max_live} requests.")
        stream = self._streams.open(admitted, self._tokenizer)
        self._accept(admitted)
        try:
            while not stream.ended:
                for output in await stream.next():
                    yield output
        finally:
            self._give_up(self._streams.close(stream))

    async def abort(self, request_id: str) -> bool:
        live = self._streams.abort(request_id)
        if live:
            self._give_up((request_id,))
        return live

    def lose_ranks(self, *ranks: int) -> None:
        """None: they are whole again. Meanwhile nothing is computed."""
        self._lost_ranks = ranks
        for callback in self._loss_callbacks:
            callback()

    def on_rank_loss(self, callback: Callable[[], None]) -> None:
        self._loss_callbacks.append(callback)

    def hand_over(self) -> None:
        self._streams.hand_over(errors.EngineDead("A rank is being replaced.", was_cut_off=True))

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._callbacks.append(callback)

    async def wait_ready(self) -> None:
        await self._settled.wait()
        if self._state is not EngineState.READY:
            raise self._failure or errors.NotReady(f"The engine is {self._state.value}.")

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        if self._state is not EngineState.READY:
            raise self._failure or errors.NotReady(f"The engine is {self._state.value}.")
        self.asked.append(order)
        return raise_if_refused(self._desk.answer(order))

    async def drain(self, timeout_s: float) -> bool:
        self.enter(EngineState.DRAINING)
        try:
            await asyncio.wait_for(self._streams.wait_idle(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def unload(self, timeout_s: float) -> None:
        await self.drain(timeout_s)
        self.enter(EngineState.UNLOADED)

    async def load(self) -> None:
        if self._state is EngineState.UNLOADED:
            self.enter(EngineState.LOADING)
            await asyncio.sleep(self.step_s)
            self.enter(EngineState.READY)
        await self.wait_ready()

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        return await drain_only_replica(self, replica_id, timeout_s, options)

    async def resume_replica(self, replica_id: str) -> None:
        await resume_only_replica(self, replica_id)

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        return await scale_only_replica(num_replicas)

    async def close(self) -> None:
        for request_id in list(self._recitals):
            await self.abort(request_id)
        self.enter(EngineState.DEAD)
        if self._steps is not None:
            self._steps.cancel()
            await asyncio.gather(self._steps, return_exceptions=True)

    def enter(self, state: EngineState) -> None:
        """Be in `state`, as if the engine had got there."""
        self._state = state
        if state is EngineState.LOADING:
            self._settled.clear()
        else:
            self._settled.set()
        for callback in self._callbacks:
            callback(state)

    def die(self, *, for_good: bool = False, has_lost_a_rank: bool = False) -> None:
        """End like an engine process that was killed; `for_good`: it is not started again."""
        error = errors.EngineDead(
            "The engine process ended unexpectedly (exit code -9).",
            has_lost_a_rank=has_lost_a_rank,
        )
        self._recitals.clear()
        self._streams.fail_all(error)
        if for_good:
            self._failure = error
            self.enter(EngineState.DEAD)
        else:
            self.num_restarts += 1
            self.enter(EngineState.LOADING)

    def _accept(self, requests: tuple[Request, ...]) -> None:
        for request in requests:
            self.submitted.append(request)
            token_ids = self._tokenizer.encode(self.reply(request), add_special_tokens=False)
            self._recitals[request.request_id] = _Recital(
                request, token_ids, num_given=len(request.output_token_ids)
            )
            self._num_prompt_tokens += len(request.prompt_token_ids)
        if self._steps is None or self._steps.done():
            self._steps = asyncio.get_running_loop().create_task(self._run())

    def _give_up(self, request_ids: tuple[str, ...]) -> None:
        self.aborted.extend(set(request_ids) & self._recitals.keys())
        self._end(request_ids)

    def _end(self, request_ids: tuple[str, ...]) -> None:
        """What the engine does when it is told to abort: its last output of each frees the id."""
        for request_id in request_ids:
            self._recitals.pop(request_id, None)
        self._streams.deliver(
            EngineOutput(request_id=request_id, finish_reason=FinishReason.ABORT)
            for request_id in request_ids
        )

    async def _run(self) -> None:
        while self._recitals:
            await asyncio.sleep(self.step_s)
            outputs = [self._step(recital) for recital in self._recitals.values()]
            self._num_steps += 1
            for output in outputs:
                if output.finish_reason is not None:
                    del self._recitals[output.request_id]
            self._end(self._streams.deliver(outputs))

    def _step(self, recital: _Recital) -> EngineOutput:
        request_id = recital.request.request_id
        if self.fail_with is not None:
            return EngineOutput(
                request_id=request_id, finish_reason=FinishReason.ERROR, error=self.fail_with
            )
        if recital.request.pooling is not None:
            return EngineOutput(
                request_id=request_id,
                embedding=self._embedding(recital.request),
                finish_reason=FinishReason.STOP,
            )
        self._num_generated_tokens += 1
        return recital.next_output(self._tokenizer.eos_token_ids[0])

    def _embedding(self, request: Request) -> tuple[float, ...]:
        draw = random.Random(repr(request.prompt_token_ids))
        return tuple(draw.uniform(-1.0, 1.0) for _ in range(self._spec.hidden_size))
