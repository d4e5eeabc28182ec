"""EngineCore: the step loop's body. schedule -> execute -> update, and nothing else.

Called by message_loop (one request stream over ZeroMQ) and by LLM (offline). Requests
that carry a grammar join the scheduler once it is compiled, beside the running steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from novacron.engine.grammars import Grammars, GrammarStates, advance
from novacron.engine.structured_output import GrammarCompiler
from novacron.errors import NovaCronError
from novacron.executor.executor import BlocksLost, Executor
from novacron.records.cache_orders import CacheAnswer, CacheOrder
from novacron.records.output import EngineOutput, EngineStats
from novacron.records.request import FinishReason, Request
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.scheduler import Scheduler

_LOADING_PATIENCE_S = 0.001  # then somebody may have written to us


class _StepInFlight(NamedTuple):
    decision: SchedulerOutput
    grammars: GrammarStates  # of those of its requests that have one


class EngineCore:
    """One replica: what is asked of it, and step by step towards it, as many of them in flight as
    the executor may have.

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
        self._grammars = Grammars(make_grammar_compiler)
        self._refused: list[EngineOutput] = []
        self.num_steps = 0  # that computed something
        self._step_time_s = 0.0
        self._schedule_time_s = 0.0
        self._draft_time_s = 0.0
        self._not_scheduling_s = 0.0  # spent on computing, guesses included
        self._in_flight: deque[_StepInFlight] = deque()

    @property
    def has_work(self) -> bool:
        return (
            self._scheduler.has_work
            or self._grammars.is_compiling
            or bool(self._refused or self._in_flight)
        )

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
        """Begin as many steps as may be in flight, and return the news of the first of them. Does
        nothing if nothing can run, or if blocks are lost: the next step computes again."""
        started_s, not_scheduling_s = time.perf_counter(), self._not_scheduling_s
        self._admit_compiled()
        outputs, self._refused = self._refused, []
        self._take_block_news()
        has_computed = False
        try:
            decision = self._begin_steps()
            has_computed = bool(self._in_flight)
            if has_computed:
                outputs += self._end_step()
            else:
                outputs += self._scheduler.update(decision, ModelRunnerOutput(decision.step, ()))
        except BlocksLost:
            self.lose_blocks()
            return outputs
        self._order_blocks()
        for output in outputs:
            if output.finish_reason is not None:
                self._grammars.drop(output.request_id)
        if has_computed:
            elapsed_s = time.perf_counter() - started_s
            self.num_steps += 1
            self._step_time_s += elapsed_s
            self._schedule_time_s += elapsed_s - (self._not_scheduling_s - not_scheduling_s)
        elif self._scheduler.is_loading:
            self._take_block_news(_LOADING_PATIENCE_S)
        return outputs

    def _begin_steps(self) -> SchedulerOutput:
        """Returns the last decision, which may be that there is nothing to compute."""
        while True:
            decision = self._scheduler.schedule()
            self._order_blocks()
            if not decision.scheduled:
                return decision
            if decision.drafting:
                decision = self._draft(decision)
            decision, states = self._grammars.constrain(decision)
            began_s = time.perf_counter()
            self._executor.submit(decision)
            self._not_scheduling_s += time.perf_counter() - began_s
            self._in_flight.append(_StepInFlight(decision, states))
            if len(self._in_flight) == self._executor.max_steps_in_flight:
                return decision

    def _end_step(self) -> list[EngineOutput]:
        decision, states = self._in_flight.popleft()
        began_s = time.perf_counter()
        result = self._executor.collect()
        self._not_scheduling_s += time.perf_counter() - began_s
        advance(states, result)
        return self._scheduler.update(decision, result)

    def lose_blocks(self) -> None:
        """After BlocksLost: requests that ran are computed again, with the tokens they have got."""
        self._in_flight.clear()
        self._scheduler.lose_blocks()

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

    def _draft(self, decision: SchedulerOutput) -> SchedulerOutput:
        """The decision with the guesses that it asks for."""
        started_s = time.perf_counter()
        drafted = self._executor.draft(decision)
        draft_time_s = time.perf_counter() - started_s
        self._draft_time_s += draft_time_s
        self._not_scheduling_s += draft_time_s
        return self._scheduler.add_drafts(decision, drafted)

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
