"""ProcessClient: an engine in a process of its own, started, watched and restarted from here. The
process is a child of this one, or runs on another host: EngineHandle is what either is.

One per API process. The engine's death fails what ran on it (EngineDead) within milliseconds of
the kernel telling us, and a new one is started; a start-up that fails for a lasting reason is
reported once and not tried again.

Whatever happens to the engine, nobody waits for ever: every way out of LOADING wakes those who
wait for it, and every way that an engine is left fails the requests that ran on it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path

import msgspec

from novacron import errors
from novacron.config.engine import EngineConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.admission import admit
from novacron.engine.canary import LEAST_CONTEXT, MOST_FAILURES, Canary, CanaryRecord, Failure
from novacron.engine.client import (
    DrainOptions,
    EngineState,
    NodeStatus,
    ReplicaStatus,
    VariantStatus,
    status_of,
)
from novacron.engine.engine_handle import EXIT_RANK_LOST, EngineHandle
from novacron.engine.engine_process import EngineProcess
from novacron.engine.grammar_check import GrammarCheck
from novacron.engine.heart_monitor import HeartMonitor
from novacron.engine.pulse import ranks_of
from novacron.engine.questions import Questions, error_named, raise_if_refused
from novacron.engine.replica_drain import (
    drain_only_replica,
    only_replica,
    resume_only_replica,
    scale_only_replica,
)
from novacron.engine.request_streams import RequestStreams
from novacron.engine.tokenization import Tokenizer
from novacron.quality.document import Document
from novacron.records import wire
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.parallel_stats import LinkStats
from novacron.records.request import Request

_RESTART_DELAYS_S = (0.0, 1.0, 2.0, 4.0, 8.0)  # deaths in a row before Ready was reached
_LINK_DELAY_S = 0.5  # between the loss of a link and the next one
_END_PATIENCE_S = 5.0
_LOOK_S = 0.5  # between two looks at whether the engine lives
_LAST_WORDS_S = 0.05  # what a process sent before it died still arrives
_CANARY_FAILURES: dict[Failure, str] = {
    "wrong": "it gave another answer to the canary than when it was first asked",
    "missing": "it had nothing else to do, and gave the canary no answer (canary_timeout)",
}

logger = logging.getLogger(__name__)


class ProcessClient:
    """An EngineClient whose engine is a process that `make_process` starts. `check` is given what
    each engine says of its model once it has loaded it, and raises why it is not the right one.

    `spawn` may be called before there is an event loop, so that the child imports and loads while
    this process imports the gateway; `start` takes over on the loop.
    """

    def __init__(
        self,
        config: EngineConfig,
        model_path: Path,
        *,
        make_process: Callable[[EngineConfig, Path], EngineHandle] = EngineProcess,
        check: Callable[[ModelSpec], None] = lambda spec: None,
    ) -> None:
        self._config = config
        self._model_path = model_path
        self._make_process = make_process
        self._check = check
        self._state = EngineState.LOADING
        self._progress = ("start", 0.0)
        self._spec: ModelSpec | None = None
        self._tokenizer: Tokenizer | None = None
        self._grammars = GrammarCheck()
        self._stats = EngineStats()
        self._streams = RequestStreams()
        self._questions = Questions()
        self._seeds = random.Random(config.model.seed)
        self._max_live = most_live(config.scheduler)
        self._callbacks: list[Callable[[EngineState], None]] = []
        self._not_loading = asyncio.Event()
        self._changing = asyncio.Lock()  # held by load and unload, not by close
        self._is_unloading = False
        self._failure: errors.NovaCronError | None = None
        self._deaths_in_a_row = 0
        self._num_restarts = 0
        self._engine: EngineHandle | None = None
        self._earlier_links = LinkStats()
        self._canary_record = CanaryRecord()
        self._canary = self._make_canary()
        self._num_canaries = 0
        self._loss_callbacks: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def loading_progress(self) -> tuple[str, float]:
        return self._progress

    @property
    def spec(self) -> ModelSpec:
        if self._spec is None:
            raise self._not_ready()
        return self._spec

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise self._not_ready()
        return self._tokenizer

    @property
    def stats(self) -> EngineStats:
        return self._stats

    @property
    def num_restarts(self) -> int:
        return self._num_restarts

    @property
    def variants(self) -> tuple[VariantStatus, ...]:
        return (status_of(self, _name_of(self._config.model.quantization, self._spec)),)

    @property
    def engine_pid(self) -> int | None:
        return None if self._engine is None or self._engine.closed else self._engine.local_pid

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        return only_replica(self)

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        return ()

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._callbacks.append(callback)

    def on_rank_loss(self, callback: Callable[[], None]) -> None:
        """Called when ranks are lost, or are whole again: see `stats.lost_ranks`."""
        self._loss_callbacks.append(callback)

    def hand_over(self) -> None:
        """Have what runs here go on elsewhere: it raises EngineDead, though the engine lives."""
        self._streams.hand_over(
            errors.EngineDead(
                "A rank of the engine is being replaced. The request can be sent again.",
                was_cut_off=True,
            )
        )

    def spawn(self) -> None:
        """Start the engine process at once. Needs no event loop."""
        self._engine = self._make_process(self._config, self._model_path)

    async def start(self) -> None:
        """Take charge of the engine process, started here if `spawn` was not called.

        Returns before the model is loaded. Raises ModelLoadError if the tokenizer is unusable.
        """
        if self._engine is None:
            self.spawn()
        assert self._engine is not None
        self._watch(self._engine)
        self._tokenizer = await asyncio.to_thread(self._load_tokenizer)

    async def wait_ready(self) -> None:
        while self._state is EngineState.LOADING:
            await self._not_loading.wait()
        if self._state is not EngineState.READY:
            raise self._refusal()

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        if self._state is not EngineState.READY:
            raise self._refusal()
        admitted = tuple(admit(request, self.spec, self._seeds) for request in requests)
        self._refuse_if_full(len(admitted))
        await self._grammars.check(admitted, self.tokenizer, self.spec)
        engine = self._engine
        if engine is None or self._state is not EngineState.READY:  # it ended while we compiled
            raise self._refusal()
        stream = self._streams.open(admitted, self.tokenizer)
        try:
            if not engine.send(wire.Submit(admitted)):
                raise errors.EngineDead(
                    "The engine has just ended. The request can be sent again.", has_run=False
                )
            while not stream.ended:
                for output in await stream.next():
                    if output.was_shed:
                        raise errors.Overloaded(output.error or "The queue is full.")
                    yield output
        finally:
            self._abort_in(engine, self._streams.close(stream))

    async def abort(self, request_id: str) -> bool:
        live = self._streams.abort(request_id)
        if live and self._engine is not None:
            self._abort_in(self._engine, (request_id,))
        return live

    async def ask(self, order: CacheOrder, variant: str = "") -> CacheAnswer:
        engine = self._engine
        if engine is None or self._state is not EngineState.READY:
            raise self._refusal()
        number, answer = self._questions.open()
        if not engine.send(wire.Ask(number, order)):
            answer.cancel()
            raise errors.EngineDead("The engine has just ended. The order can be given again.")
        return raise_if_refused(await answer)

    def score(self, answer: Document) -> None:
        """Have the watch over quality score an answer that another variant gave. Nothing happens
        where there is no watch, or no engine."""
        if self._engine is not None and self._state is EngineState.READY:
            self._engine.send(wire.Score(answer.token_ids, answer.first_scored))

    async def drain(self, timeout_s: float) -> bool:
        if self._state is EngineState.READY:
            self._enter(EngineState.DRAINING)
        try:
            await asyncio.wait_for(self._streams.wait_idle(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def unload(self, timeout_s: float) -> None:
        async with self._changing:
            if self._state in (EngineState.UNLOADED, EngineState.DEAD):
                return
            self._is_unloading = True
            try:
                was_loading = self._state is EngineState.LOADING
                if not was_loading:
                    await self.drain(timeout_s)
                await self._end_engine(at_once=was_loading)
            finally:
                self._is_unloading = False
            self._enter(EngineState.UNLOADED)

    async def load(self) -> None:
        async with self._changing:  # after an unload that is under way
            if self._state is EngineState.UNLOADED:
                self._respawn()
        await self.wait_ready()

    async def drain_replica(self, replica_id: str, timeout_s: float, options: DrainOptions) -> bool:
        return await drain_only_replica(self, replica_id, timeout_s, options)

    async def resume_replica(self, replica_id: str) -> None:
        await resume_only_replica(self, replica_id)

    async def scale(self, num_replicas: int, timeout_s: float) -> bool:
        return await scale_only_replica(num_replicas)

    async def close(self) -> None:
        self._failure = self._failure or errors.NotReady("The server is shutting down.")
        was_loading = self._state is EngineState.LOADING
        self._enter(EngineState.DEAD)  # first, so that nothing starts another engine
        await self._end_engine(at_once=was_loading)
        self._grammars.close()

    def _load_tokenizer(self) -> Tokenizer:
        model = self._config.model
        template = Path(model.chat_template) if model.chat_template else None
        return Tokenizer.load(Path(model.tokenizer or self._model_path), template)

    def _refuse_if_full(self, num_new: int) -> None:
        num_live = len(self._streams) + self._grammars.num_pending
        if num_live + num_new > self._max_live:
            raise errors.Overloaded(
                f"The queue is full: {num_live} requests are running or waiting, and at most "
                f"{self._max_live} may. Try again later, or raise max_queued_requests."
            )

    def _refusal(self) -> errors.NovaCronError:
        """Why there is no engine to work with, for good or for now."""
        if self._failure is None:
            return self._not_ready()
        return self._failure.with_traceback(None)  # which each raise would lengthen

    def _not_ready(self) -> errors.NotReady:
        phase, fraction = self._progress
        match self._state:
            case EngineState.DRAINING:
                return errors.NotReady("The server is finishing its work before it ends.", 5.0)
            case EngineState.UNLOADED:
                return errors.NotReady("The model is unloaded; load it first.", 5.0)
            case EngineState.DEAD:
                return errors.NotReady("The engine has ended for good; restart the server.", 5.0)
            case _:
                return errors.NotReady(f"The model is loading: {phase}, {fraction:.0%}.")

    def _abort_in(self, engine: EngineHandle, request_ids: tuple[str, ...]) -> None:
        if request_ids and engine is self._engine:
            engine.send(wire.Abort(request_ids))

    def _enter(self, state: EngineState) -> None:
        """Nothing leads out of DEAD: an unload, say, that ends after `close` changes nothing."""
        if self._state in (state, EngineState.DEAD):
            return
        self._state = state
        if state is EngineState.LOADING:
            self._not_loading.clear()
        else:
            self._not_loading.set()
        if state not in (EngineState.READY, EngineState.DRAINING):
            self._stats = self._stats.after_the_end()
        for callback in self._callbacks:
            callback(state)

    def _watch(self, engine: EngineHandle) -> None:
        self._canary = self._make_canary()
        duties: tuple[Coroutine[None, None, None], ...] = (
            self._read(engine),
            self._await_death(engine),
            self._monitor(engine),
        )
        for duty in duties:
            task = asyncio.get_running_loop().create_task(duty)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read(self, engine: EngineHandle) -> None:
        try:
            async for message in engine.messages():
                if engine is not self._engine or engine.closed:
                    return  # it was given up while the message was on its way
                self._take(engine, message)
        except Exception:  # of ours: whom the message was for would otherwise wait for ever
            logger.exception("a message of the engine could not be handled; restarting it")
            engine.kill()

    def _take(self, engine: EngineHandle, message: wire.FromEngine) -> None:
        match message:
            case wire.Outputs(outputs, stats):
                others, failure = self._canary.take(outputs, time.monotonic())
                self._stats = self._with_findings(stats)
                self._abort_in(engine, self._streams.deliver(others))
                if failure is not None:
                    self._see_canary(engine, failure)
            case wire.Answer(number, answer):
                self._questions.settle(number, answer)
            case wire.Loading(phase, fraction):
                self._progress = (phase, fraction)
            case wire.Ready(version, spec):
                self._become_ready(version, spec)
            case wire.Failed(kind, text):
                self._give_up(error_named(kind, text, errors.ModelLoadError))

    def _become_ready(self, version: int, spec: ModelSpec) -> None:
        if version != wire.WIRE_VERSION:
            self._give_up(errors.ConfigError(f"The engine speaks wire version {version}."))
            return
        try:
            self._check(spec)
        except errors.NovaCronError as error:
            self._give_up(error)
            assert self._engine is not None
            self._engine.kill()
            return
        names = self._config.model.served_model_name
        self._spec = msgspec.structs.replace(spec, name=names[0]) if names else spec
        self._stats = self._with_findings(EngineStats(num_blocks=spec.num_blocks))
        self._config = self._config.after_measuring(spec.device_free_bytes)
        self._progress = ("ready", 1.0)
        self._deaths_in_a_row = 0
        if self._state is EngineState.LOADING:
            self._enter(EngineState.READY)

    def _give_up(self, failure: errors.NovaCronError) -> None:
        self._failure = failure
        self._fail_all(failure)
        self._enter(EngineState.DEAD)

    async def _await_death(self, engine: EngineHandle) -> None:
        exit_code = await engine.wait()
        await asyncio.sleep(_LAST_WORDS_S)
        if engine is not self._engine or self._state is EngineState.DEAD:
            return
        was_cut_off = exit_code is None
        cause = f"The engine process ended unexpectedly (exit code {exit_code})."
        if was_cut_off:  # it may well live: to be tried for as long as it takes
            cause = "The link to the engine's host was lost."
        self._deaths_in_a_row += not was_cut_off
        self._see_end_of_link(engine, was_cut_off=was_cut_off)
        logger.error("%s", cause)
        self._fail_all(
            errors.EngineDead(
                f"{cause} The request can be sent again.",
                was_killed=exit_code == -signal.SIGKILL,
                was_cut_off=was_cut_off,
                has_lost_a_rank=exit_code == EXIT_RANK_LOST,
            )
        )
        engine.close()
        if self._is_unloading:
            return
        if self._state is EngineState.DRAINING:
            self._give_up(errors.EngineDead(f"{cause} It is not restarted while draining."))
            return
        if self._deaths_in_a_row > len(_RESTART_DELAYS_S):
            self._give_up(errors.EngineDead(f"{cause} It failed too often to be tried again."))
            return
        self._enter(EngineState.LOADING)
        await asyncio.sleep(_LINK_DELAY_S if was_cut_off else self._restart_delay_s())
        if engine is self._engine:  # neither unloaded nor closed meanwhile
            self._num_restarts += 1
            self._respawn()

    def _restart_delay_s(self) -> float:
        return _RESTART_DELAYS_S[self._deaths_in_a_row - 1]

    async def _monitor(self, engine: EngineHandle) -> None:
        """Kill an engine that has not ended, but does not live."""
        config = self._config
        monitor = HeartMonitor(config.heartbeat_timeout, config.step_timeout, _LOOK_S)
        while True:
            await asyncio.sleep(_LOOK_S)
            if engine is not self._engine or engine.closed:
                return
            is_loading = self._state is EngineState.LOADING
            ranks = self._stats.rank_pids  # which replaces them itself where steps need them
            signs = engine.vital_signs(ranks)
            reason = monitor.look(signs, is_loading=is_loading)
            if reason is not None:
                logger.error("the engine is given up and killed: %s", reason)
                engine.kill()
                return
            if engine.link_stats is not None:
                self._stats = self._with_findings(self._stats)
            if self._state is EngineState.READY:
                self._see_ranks(ranks_of(signs.pulse.lost_ranks))
                self._try_canary(engine)

    def _see_ranks(self, lost_ranks: tuple[int, ...]) -> None:
        if lost_ranks != self._stats.lost_ranks:
            self._stats = msgspec.structs.replace(self._stats, lost_ranks=lost_ranks)
            for callback in self._loss_callbacks:
                callback()

    def _make_canary(self) -> Canary:
        config = self._config
        return Canary(
            self._canary_record,
            interval_s=config.canary_interval,
            timeout_s=config.canary_timeout,
            look_s=_LOOK_S,
            is_first=self._spec is None,
        )

    def _try_canary(self, engine: EngineHandle) -> None:
        """At each look at an engine that is ready."""
        num_live = len(self._streams)
        if self.spec.max_model_len >= LEAST_CONTEXT and self._canary.is_due(num_live):
            self._num_canaries += 1
            request = self._canary.begin(self._num_canaries, self.spec, time.monotonic())
            engine.send(wire.Submit((request,)))
        failure = self._canary.look(num_live)
        if failure is not None:
            self._see_canary(engine, failure)

    def _see_canary(self, engine: EngineHandle, failure: Failure) -> None:
        reason = _CANARY_FAILURES[failure]
        logger.error("the engine is not well, and is killed: %s", reason)
        self._stats = self._with_findings(self._stats)
        if self._canary_record.num_failures >= MOST_FAILURES:
            self._give_up(
                errors.EngineDead(
                    f"The engine is not well, and {MOST_FAILURES} of them were not, one after the "
                    f"other: {reason}."
                )
            )
        engine.kill()

    def _with_findings(self, stats: EngineStats) -> EngineStats:
        """With what the engine cannot know of itself."""
        canary = self._canary_record.stats if self._config.canary_interval else None
        link = self._engine.link_stats if self._engine is not None else None
        if link is not None:
            link = link.after(self._earlier_links)
        lost_ranks = self._stats.lost_ranks
        return msgspec.structs.replace(stats, lost_ranks=lost_ranks, canary=canary, link=link)

    def _see_end_of_link(self, engine: EngineHandle, *, was_cut_off: bool) -> None:
        link = engine.link_stats
        if link is not None:
            link = msgspec.structs.replace(link, num_lost=int(was_cut_off))
            self._earlier_links = link.after(self._earlier_links)

    def _fail_all(self, error: errors.NovaCronError) -> None:
        self._streams.fail_all(error)
        self._questions.fail_all(error)

    def _respawn(self) -> None:
        self._progress = ("start", 0.0)
        self._enter(EngineState.LOADING)
        try:
            self.spawn()
        except OSError as error:
            self._give_up(errors.EngineDead(f"The engine process cannot be started: {error}."))
            return
        assert self._engine is not None
        self._watch(self._engine)

    async def _end_engine(self, *, at_once: bool = False) -> None:
        """`at_once`: while it loads, it does not listen, and it has nothing to lose."""
        engine, self._engine = self._engine, None
        self._fail_all(errors.EngineDead("The engine was shut down.", has_run=False))
        if engine is None:
            return
        if at_once:
            engine.kill()
        await engine.end(_END_PATIENCE_S)


def most_live(limits: SchedulerConfig) -> int:
    """Requests that may be on their way or in the engine. First come, first served, one too many is
    refused here. Else it is the engine that knows who has to go, so some more may get there."""
    most = limits.max_num_seqs + limits.max_queued_requests
    return most if limits.scheduling_policy == "fcfs" else most + limits.max_queued_requests


def _name_of(quantization: str, spec: ModelSpec | None) -> str:
    """Of the one variant: as it was asked for, or else by what came of it."""
    if quantization != "auto":
        return quantization
    held = "none" if spec is None else spec.quantization
    return held.partition(" ")[0].rstrip(":,")
