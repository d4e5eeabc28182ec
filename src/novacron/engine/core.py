"""EngineCore: the step loop's body. schedule -> execute -> update, and nothing else.

Called by the loop in core_process (one request stream over ZeroMQ) and by LLM (offline). Requests
that carry a grammar join the scheduler once it is compiled, beside the running steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from novacron.engine.structured_output import GrammarCompiler, GrammarState
from novacron.errors import NovaCronError
from novacron.executor.executor import Executor
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineOutput, EngineStats
from novacron.records.request import FinishReason, Request
from novacron.records.step import ModelRunnerOutput, ScheduledTokens, SchedulerOutput
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.scheduler import Scheduler

_LOADING_PATIENCE_S = 0.001  # then somebody may have written to us


class EngineCore:
    """One replica: what is asked of it, and one step at a time towards it.

    `make_grammar_compiler` is called once, when the first constrained request arrives.
    """

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        make_grammar_compiler: Callable[[], GrammarCompiler],
        desk: CacheDesk,
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._desk = desk
        self._grammars = _Grammars(make_grammar_compiler)
        self._refused: list[EngineOutput] = []
        self.num_steps = 0  # that computed something
        self._step_time_s = 0.0
        self._schedule_time_s = 0.0
        self._draft_time_s = 0.0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or self._grammars.is_compiling or bool(self._refused)

    @property
    def is_loading(self) -> bool:
        """Whether `step` waits by itself, for a short time, if there is nothing to compute."""
        return self._scheduler.is_loading

    @property
    def awaits_block_news(self) -> bool:
        """Whether KV tiers still work, though there may be nothing to compute."""
        return self._scheduler.awaits_block_news

    def take_block_news(self) -> bool:
        """Look what KV tiers did, where no step does so, and give them what there is to do. Whether
        there was something."""
        has_news = self._take_block_news()
        self._order_blocks()
        return has_news

    def ask(self, order: CacheOrder) -> CacheAnswer:
        """Something about the KV cache itself."""
        self._take_block_news()
        answer = self._desk.answer(order)
        self._order_blocks()
        return answer

    def add(self, request: Request) -> None:
        """Take a request, which will get exactly one final output from `step` or `abort`."""
        if request.sampling.structured_output is None:
            self._admit(request)
        else:
            self._grammars.compile(request)

    def abort(self, request_ids: Iterable[str]) -> list[EngineOutput]:
        """End requests. Ids that are not running (any more) are passed over."""
        outputs = []
        for request_id in request_ids:
            compiling = self._grammars.drop(request_id)
            output = self._scheduler.abort(request_id)
            if output is not None:
                outputs.append(output)
            elif compiling:
                outputs.append(
                    EngineOutput(request_id=request_id, finish_reason=FinishReason.ABORT)
                )
        return outputs

    def step(self) -> list[EngineOutput]:
        """Compute one step and return its news. Does nothing if nothing can run."""
        started_s = time.perf_counter()
        self._admit_compiled()
        outputs, self._refused = self._refused, []
        self._take_block_news()
        decision = self._scheduler.schedule()
        self._order_blocks()
        draft_time_s = 0.0
        if decision.drafting:
            decision, draft_time_s = self._draft(decision)
        decision = self._grammars.constrain(decision)
        decided_s = time.perf_counter()
        result = self._compute(decision)
        executed_s = time.perf_counter()
        self._grammars.advance(result)
        outputs += self._scheduler.update(decision, result)
        self._order_blocks()
        for output in outputs:
            if output.finish_reason is not None:
                self._grammars.drop(output.request_id)
        ended_s = time.perf_counter()
        if decision.scheduled:
            self.num_steps += 1
            self._step_time_s += ended_s - started_s
            self._draft_time_s += draft_time_s
            scheduled_s = (decided_s - started_s) + (ended_s - executed_s)
            self._schedule_time_s += scheduled_s - draft_time_s
        elif self._scheduler.is_loading:
            self._take_block_news(_LOADING_PATIENCE_S)
        return outputs

    def abort_all(self) -> list[EngineOutput]:
        """End everything, accepted and not yet running requests included."""
        refused, self._refused = self._refused, []
        compiling = self.abort(self._grammars.compiling_ids)
        return refused + compiling + self._scheduler.abort_all()

    def stats(self) -> EngineStats:
        return msgspec.structs.replace(
            self._scheduler.stats(),
            num_steps=self.num_steps,
            step_time_s=self._step_time_s,
            schedule_time_s=self._schedule_time_s,
            draft_time_s=self._draft_time_s,
        )

    def shutdown(self) -> None:
        self._grammars.shutdown()
        self._executor.shutdown()

    def _order_blocks(self) -> None:
        orders = self._scheduler.take_block_orders()
        if orders is not None:
            self._executor.move_blocks(orders)

    def _take_block_news(self, wait_s: float = 0.0) -> bool:
        news = self._executor.block_news(wait_s)
        if news is not None:
            self._scheduler.see_block_news(news)
        return news is not None

    def _draft(self, decision: SchedulerOutput) -> tuple[SchedulerOutput, float]:
        """The decision with the guesses that it asks for, and the seconds they took."""
        started_s = time.perf_counter()
        drafted = self._executor.draft(decision)
        draft_time_s = time.perf_counter() - started_s
        return self._scheduler.add_drafts(decision, drafted), draft_time_s

    def _compute(self, decision: SchedulerOutput) -> ModelRunnerOutput:
        if not decision.scheduled:
            return ModelRunnerOutput(decision.step, ())
        return self._executor.execute(decision)

    def _admit(self, request: Request) -> None:
        try:
            self._scheduler.add(request)
        except NovaCronError as error:
            self._refuse(request, error)

    def _admit_compiled(self) -> None:
        for request, error in self._grammars.compiled():
            if error is None:
                self._admit(request)
            else:
                self._refuse(request, error)

    def _refuse(self, request: Request, error: NovaCronError) -> None:
        reason = FinishReason.ERROR
        self._refused.append(
            EngineOutput(request.request_id, finish_reason=reason, error=str(error))
        )


class _Grammars:
    """Grammar states of constrained requests, by request id; compiles on a thread of its own."""

    def __init__(self, make_compiler: Callable[[], GrammarCompiler]) -> None:
        self._make_compiler = make_compiler
        self._compiler: GrammarCompiler | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._compiling: dict[str, tuple[Request, Future[GrammarState]]] = {}
        self._states: dict[str, GrammarState] = {}

    @property
    def is_compiling(self) -> bool:
        return bool(self._compiling)

    @property
    def compiling_ids(self) -> tuple[str, ...]:
        return tuple(self._compiling)

    def compile(self, request: Request) -> None:
        future = self._thread.submit(self._state_for, request)
        self._compiling[request.request_id] = (request, future)

    def compiled(self) -> Iterable[tuple[Request, NovaCronError | None]]:
        """Requests whose grammar is ready, or refused, since the last call."""
        ready = [entry for entry in self._compiling.values() if entry[1].done()]
        for request, future in ready:
            del self._compiling[request.request_id]
            error = future.exception()
            if error is None:
                self._states[request.request_id] = future.result()
                yield request, None
            elif isinstance(error, NovaCronError):
                yield request, error
            else:
                raise error

    def constrain(self, decision: SchedulerOutput) -> SchedulerOutput:
        """The decision with the token masks of its constrained requests, and without the drafts
        that their grammars forbid."""
        if not self._states:
            return decision
        masks = {
            part.request_id: self._states[part.request_id].masks(part.draft_token_ids)
            for part in decision.scheduled
            if part.request_id in self._states
        }
        parts = tuple(
            _keep_drafts(part, len(masks[part.request_id]) - 1)
            if part.request_id in masks
            else part
            for part in decision.scheduled
        )
        return msgspec.structs.replace(decision, scheduled=parts, token_masks=masks)

    def advance(self, result: ModelRunnerOutput) -> None:
        if not self._states:
            return
        for part in result.results:
            if part.token_ids and part.request_id in self._states:
                self._states[part.request_id].accept(part.token_ids)

    def drop(self, request_id: str) -> bool:
        """Forget a request; True if its grammar was still being compiled."""
        self._states.pop(request_id, None)
        entry = self._compiling.pop(request_id, None)
        if entry is not None:
            entry[1].cancel()
        return entry is not None

    def shutdown(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _state_for(self, request: Request) -> GrammarState:
        spec = request.sampling.structured_output
        assert spec is not None
        if self._compiler is None:
            self._compiler = self._make_compiler()
        state = self._compiler.compile(spec)
        if request.output_token_ids:
            state.accept(request.output_token_ids)
        return state


def _keep_drafts(part: ScheduledTokens, count: int) -> ScheduledTokens:
    """The part with its first `count` drafts only."""
    drafts = part.draft_token_ids
    if count == len(drafts):
        return part
    return msgspec.structs.replace(
        part,
        num_tokens=part.num_tokens - len(drafts) + count,
        draft_token_ids=drafts[:count],
    )
