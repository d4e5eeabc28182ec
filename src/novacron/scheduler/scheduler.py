"""Scheduler: which requests compute how many tokens in the next step. Pure bookkeeping, no torch.

EngineCore calls `schedule`, lets the executor compute the decision and hands the result to
`update`; `add` and `abort` may come at any time between. There are no phases: prefill, a chunk of
it, decode and resuming after a preemption are all "catch up by some tokens", within one budget.
Speculation lets a part run ahead by some more: guesses, which count once they turn out right.

Source: the phase-free schedule / update pair of vLLM v1 (Apache-2.0); iteration-level scheduling
from Orca (OSDI 2022), chunked prefill from Sarathi-Serve (OSDI 2024).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_cache.kv_cache_manager import NO_HIT, KVCacheManager, PrefixHit
from novacron.records.block_moves import BlockNews, BlockOrders
from novacron.records.output import EngineOutput, EngineStats
from novacron.records.request import FinishReason, Request
from novacron.records.step import (
    DraftOutput,
    ModelRunnerOutput,
    NewRequest,
    PositionLogprobs,
    ScheduledTokens,
    SchedulerOutput,
    StepResult,
)
from novacron.scheduler.lives import Lives
from novacron.scheduler.micro_batches import most_requests, most_tokens
from novacron.scheduler.queue_choice import build_queue
from novacron.scheduler.request_checks import QUEUE_IS_FULL, check_request, why_too_big
from novacron.scheduler.request_state import RequestState, RequestStatus
from novacron.scheduler.scheduler_totals import ClassTotals, SchedulerTotals, SharesTotals
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.speculation import NoSpeculation, Speculation, with_drafts
from novacron.scheduler.step_plan import StepPlan
from novacron.scheduler.step_results import new_prompt_logprobs, take_tokens
from novacron.scheduler.stopping import Stop, StopConditions
from novacron.scheduler.tiers import NoTiers, Tiers


class _StepInFlight(NamedTuple):
    step: int
    states: list[RequestState]


def _see_nothing(state: RequestState) -> None:
    pass


class Scheduler:
    """All live requests of one engine, and the decisions about them.

    Promises: every request that `add` accepts gets exactly one output with a finish reason, from
    `update`, `abort` or `abort_all`. A step never exceeds `max_num_batched_tokens` tokens or
    `max_num_seqs` requests. Each running request is part of every step with at least one token, so
    a long prompt slows the others but does not stop them, unless the queue's order lets a more
    urgent one have a step for itself. If blocks run out, a running request is preempted and later
    computed again; in each step one advances. A request whose
    prefix goes on in a KV tier waits until that has come, and nobody waits for it.

    Up to `max_in_flight` steps may be decided before the result of the first is seen; whoever
    computes them keeps their order. Then each step takes a share of the running requests. One that
    waits for its next token is in no further step, but a prompt's chunks may follow each other. Who
    is in flight is not preempted: if blocks run out, the step ends there, and the next ones come
    to it again once that result is seen.

    Where `most_live` are live, one that has not begun ends for each that comes, the one that the
    order can spare most.

    With `enable_chunked_prefill` off, a request starts only when all it has to compute fits into
    what the step has left. A prompt above the whole budget is computed in parts all the same: the
    budget bounds the memory of a step, and a prompt that the context admits must be served.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        kv_cache: KVCacheManager,
        *,
        max_model_len: int,
        eos_token_ids: frozenset[int],
        speculation: Speculation | None = None,
        tiers: Tiers | None = None,
        sessions: Sessions | None = None,
        max_in_flight: int = 1,
        most_live: int | None = None,
        see_end: Callable[[RequestState], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._max_in_flight = max_in_flight
        self._most_live = most_live
        self._kv_cache = kv_cache
        self._max_model_len = max_model_len
        self._eos_token_ids = eos_token_ids
        self._speculation = speculation or NoSpeculation()
        self._tiers = tiers or NoTiers()
        self._sessions = Sessions() if sessions is None else sessions

        self._totals = SchedulerTotals()
        self._shares = SharesTotals()
        self._waiting = build_queue(config, clock)
        self._lives = Lives(
            self._waiting,
            kv_cache,
            tiers=self._tiers,
            sessions=self._sessions,
            totals=self._totals,
            parks=config.preemption_mode == "swap",
            see_end=see_end or _see_nothing,
            clock=clock,
        )
        self._live, self._running = self._lives.by_id, self._lives.running
        self._in_flight: deque[_StepInFlight] = deque()  # result not seen yet
        self._outputs: list[EngineOutput] = []  # told by the next update

        self._num_added = 0

    # What the engine asks

    @property
    def has_work(self) -> bool:
        """Whether `schedule` and `update` shall be called again."""
        return bool(self._live or self._outputs)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting) + self._lives.num_loading

    @property
    def is_loading(self) -> bool:
        """Whether requests wait for blocks, so that news of them are wanted."""
        return self._lives.num_loading > 0

    def stats(self) -> EngineStats:
        """Everything but the times, which the caller of `schedule` and `update` measures."""
        speculation = self._speculation.totals
        stats = EngineStats(
            num_running=len(self._running),
            num_waiting=self.num_waiting,
            num_blocks=self._kv_cache.num_blocks,
            num_used_blocks=self._kv_cache.num_used_blocks,
            num_cached_blocks=self._kv_cache.num_cached_blocks,
            **vars(self._totals),
            num_drafts=speculation.num_drafts,
            num_draft_tokens=speculation.num_draft_tokens,
            num_accepted_tokens=speculation.num_accepted_tokens,
            speculative_method=speculation.method,
            sessions=self._sessions.stats(),
            shares=self._shares.stats(self._waiting.num_tenants),
        )
        return self._tiers.add_to(stats)

    # Requests come and go

    def add(self, request: Request) -> None:
        """Accept a request, whose seed is set. Raises InvalidRequest and keeps nothing of it if the
        id is in use or the prompt is empty, PromptTooLong if the context cannot hold its tokens.

        A continued stream that had all of its tokens already ends with the next `update`.
        """
        check_request(request, self._live.keys(), self._max_model_len)
        conditions = StopConditions.resolve(
            request.sampling,
            num_prompt_tokens=len(request.prompt_token_ids),
            max_model_len=self._max_model_len,
            eos_token_ids=self._eos_token_ids,
        )
        token_ids = [*request.prompt_token_ids, *request.output_token_ids]
        state = RequestState(
            request=request,
            arrival_index=self._num_added,
            token_ids=token_ids,
            blocks=self._kv_cache.open_table(
                request.cache_salt, token_ids, self._tiers.public_keys, request.cache_scope
            ),
            stop_conditions=conditions,
            totals=ClassTotals() if request.uncounted else self._shares.of(request.priority),
            engine_totals=SchedulerTotals() if request.uncounted else self._totals,
        )
        self._num_added += 1
        self._lives.add(state)
        self._tiers.expect(state)
        self._shed()
        if request.output_token_ids:
            stop = conditions.after(request.output_token_ids[-1], len(request.output_token_ids))
            if stop is not None:
                self._outputs.append(self._tell(state, stop=stop))

    def _shed(self) -> None:
        """If more live than may, the one that can be spared most ends before it has begun: perhaps
        the one that has just come."""
        if self._most_live is None or len(self._live) <= self._most_live:
            return
        state = self._waiting.to_shed()
        if state is not None:
            self._totals.num_shed += 1
            state.totals.num_shed += 1
            self._outputs.append(
                self._tell(state, stop=Stop(FinishReason.ERROR), error=QUEUE_IS_FULL, was_shed=True)
            )

    def abort(self, request_id: str) -> EngineOutput | None:
        """End a request now and return its final output; None if there is no such live request.

        If its step is being computed, the blocks are freed when `update` sees the result.
        """
        state = self._live.get(request_id)
        return None if state is None else self._tell(state, stop=Stop(FinishReason.ABORT))

    def abort_all(self) -> list[EngineOutput]:
        """End every live request; also returns the outputs that the next `update` would have."""
        return self._take_outputs() + [
            self._tell(state, stop=Stop(FinishReason.ABORT)) for state in list(self._live.values())
        ]

    # Blocks below the device

    @property
    def awaits_block_news(self) -> bool:
        """Whether tiers still do something that no step waits for."""
        return self._tiers.awaits_news

    def take_block_orders(self) -> BlockOrders | None:
        """What ranks shall store and load beside the steps, since the last call. Loads are ordered
        by `schedule`, and stores by `update`, which knows that the blocks are written."""
        return self._tiers.take_orders()

    def see_block_news(self, news: BlockNews) -> None:
        """What came of orders."""
        for state in self._tiers.see(news):
            self._lives.end_load(state)

    def lose_blocks(self) -> None:
        """What blocks of the device held is gone, and steps in flight have no result: whatever ran
        is computed again, from its prompt and what has come of it. Nothing that was ordered to be
        stored, and that ranks have not heard of, is stored."""
        self._speculation.forget_steps([one for _, states in self._in_flight for one in states])
        for _, states in self._in_flight:
            self._tiers.end_step()
            for state in states:
                state.num_in_flight -= 1
                if state.status is RequestStatus.FINISHED:
                    self._lives.settle(state, failed=False)
        self._in_flight.clear()
        for state in reversed(self._running):
            self._lives.preempt(state, blocks_hold=False)
        self._tiers.lose_blocks()
        self._kv_cache.forget_blocks(self._kv_cache.known_blocks(keep=frozenset()))
        self._lives.take_news()  # ranks know of no request

    # A step

    def schedule(self) -> SchedulerOutput:
        """Decide the next step. Each decision must be followed by one `update`, in their order.

        One pass over the running and the waiting requests in the order in which they shall run.
        Nothing may come of it (no part scheduled): then there is nothing to compute, but `update`
        may still have outputs of requests that ended here. While steps are in flight, such a
        decision needs none: the next one has these outputs.
        """
        assert len(self._in_flight) < self._max_in_flight, "a result must be seen first"
        self._waiting.begin_step(self._running)
        plan = self._new_plan()
        admitting = True
        while not plan.is_complete:
            place = plan.place
            running = self._running[place] if place < len(self._running) else None
            waiting = self._waiting.peek() if admitting else None
            if waiting is not None and (
                running is None or self._waiting.outranks(waiting, running)
            ):
                admitting = self._waiting.may_join(waiting) and self._admit(waiting, plan)
            elif running is None:
                break
            elif self._may_advance(running, plan):
                plan.num_requests_left -= 1
                self._advance(running, plan)
            else:
                plan.place += 1
        return self._seal(plan)

    def add_drafts(self, decision: SchedulerOutput, drafted: DraftOutput) -> SchedulerOutput:
        """The decision that `schedule` made last, with the guesses of the draft model in its parts.

        To be called once for a decision with `drafting`, before the step is computed.
        """
        assert decision.step == drafted.step == self._totals.num_steps
        guesses = {
            part.request_id: drafts
            for part, drafts in zip(decision.drafting, drafted.drafts, strict=True)
        }
        states = {state.request.request_id: state for state in self._in_flight[-1].states}
        self._speculation.see_drafts(
            decision.drafting, [states[part.request_id] for part in decision.drafting], drafted
        )
        parts = tuple(
            with_drafts(part, guesses.get(part.request_id, ())) for part in decision.scheduled
        )
        return msgspec.structs.replace(decision, scheduled=parts)

    def update(
        self, scheduler_output: SchedulerOutput, runner_output: ModelRunnerOutput
    ) -> list[EngineOutput]:
        """Take in the result of the first step in flight; returns the news."""
        assert scheduler_output.step == runner_output.step
        states: list[RequestState] = []
        if scheduler_output.scheduled:
            step, states = self._in_flight.popleft()
            assert step == scheduler_output.step
        self._tiers.end_step()
        self._speculation.observe(scheduler_output.scheduled, states, runner_output.results)
        outputs = self._take_outputs()
        for state, part, result in zip(
            states, scheduler_output.scheduled, runner_output.results, strict=True
        ):
            assert part.request_id == result.request_id == state.request.request_id
            state.num_in_flight -= 1
            if state.status is RequestStatus.FINISHED:  # it ended meanwhile
                self._lives.settle(state, failed=result.error is not None)
                continue
            news = self._apply(state, part, result)
            if news is not None:
                outputs.append(news)
        return outputs

    # Parts of schedule

    def _new_plan(self) -> StepPlan:
        budget = self._config.max_num_batched_tokens
        if self._max_in_flight == 1:
            return StepPlan(budget, self._config.max_num_seqs)
        num_running = len(self._running)
        num_pending = sum(s.num_tokens - s.num_planned_tokens for s in self._running)
        next_one = self._waiting.peek()
        num_pending += 0 if next_one is None else next_one.num_tokens
        return StepPlan(
            most_tokens(budget, num_pending, num_running, self._max_in_flight),
            most_requests(num_running, self._max_in_flight),
        )

    def _may_advance(self, state: RequestState, plan: StepPlan) -> bool:
        """Whether the running request has a token that no step computes yet, and is to join."""
        return (
            plan.num_requests_left > 0
            and state.num_planned_tokens < state.num_tokens
            and self._waiting.may_join(state)
        )

    def _advance(
        self, state: RequestState, plan: StepPlan, prefix_block_ids: tuple[int, ...] = ()
    ) -> None:
        """Plan the next tokens of the running request that stands at the place reached.

        A token is kept back for each running request behind it. If blocks run out, those behind are
        preempted, or the request itself: then it is up to `_admit` whether it can go on at all.
        """
        start = state.num_planned_tokens
        num_behind = len(self._running) - plan.place - 1
        num_tokens = min(state.num_tokens - start, plan.num_tokens_left - num_behind)
        num_tokens = self._waiting.most_tokens(state, num_tokens)
        end = start + num_tokens
        while (new := self._kv_cache.extend(state.blocks, state.token_ids, end)) is None:
            victim = self._waiting.victim(self._running, plan.place)
            if victim.num_in_flight > 0:
                plan.is_complete = True
                return
            self._lives.preempt(victim)
            if state.status is not RequestStatus.RUNNING:
                return
        state.num_planned_tokens = end
        self._waiting.see_part(state, start, end)
        plan.add(
            state,
            ScheduledTokens(state.request.request_id, start, num_tokens, prefix_block_ids + new),
        )

    def _admit(self, state: RequestState, plan: StepPlan) -> bool:
        """Start the first waiting request at the place reached, if budget, seats and blocks allow.
        False if it has to wait, and with it everyone behind it."""
        if self._fail_if_too_big(state):
            return True
        num_ahead = plan.place
        num_tokens_left = plan.num_tokens_left - (len(self._running) - num_ahead)
        givers = self._waiting.givers(state, self._running, num_ahead)
        has_seat = len(self._running) - len(givers) < self._config.max_num_seqs
        if not has_seat or num_tokens_left <= 0 or not self._waiting.most_tokens(state, 2):
            return False
        hit = NO_HIT
        if not state.needs_whole_prompt:
            hit = self._kv_cache.find_prefix(state.blocks, state.token_ids)
            if self._begins_to_load(state, hit):
                return True
        if not self._may_start(len(state.token_ids) - hit.num_tokens, num_tokens_left):
            return False
        if not self._make_room(state, hit, givers):
            return False
        self._start(state, hit, plan)
        return True

    def _begins_to_load(self, state: RequestState, hit: PrefixHit) -> bool:
        """Whether a tier brings more of the prefix of the first waiting request, which then lets
        others go before it."""
        block_ids = self._tiers.begin_load(state, hit, len(self._running))
        if state.status is not RequestStatus.LOADING:
            return False
        self._lives.load(state)
        self._speculation.forget_blocks(block_ids)
        return True

    def _may_start(self, num_uncomputed: int, num_tokens_left: int) -> bool:
        if self._config.enable_chunked_prefill or num_uncomputed <= num_tokens_left:
            return True
        return num_uncomputed > self._config.max_num_batched_tokens

    def _make_room(
        self, state: RequestState, hit: PrefixHit, givers: Sequence[RequestState]
    ) -> bool:
        """Find a seat, and blocks for all known tokens, preempting those that give way.

        One more block for each of the others must stay available: a start that makes somebody
        preempt in the next steps would only waste work.
        """
        num_tokens = len(state.token_ids)
        num_staying = len(self._running) - len(givers)
        num_preemptible = sum(len(giver.blocks.block_ids) for giver in givers)
        if not self._kv_cache.has_room(num_tokens, hit, num_staying - num_preemptible):
            return False  # not even if all gave way
        going = iter(givers)
        while len(self._running) == self._config.max_num_seqs or not self._kv_cache.has_room(
            num_tokens, hit, num_staying
        ):
            giver = next(going, None)
            if giver is None or giver.num_in_flight > 0:
                return False
            self._lives.preempt(giver)
        return True

    def _start(self, state: RequestState, hit: PrefixHit, plan: StepPlan) -> None:
        self._lives.start(state, hit, plan.place)
        plan.new_requests.append(
            NewRequest(
                request_id=state.request.request_id,
                token_ids=tuple(state.token_ids),
                num_prompt_tokens=state.num_prompt_tokens,
                sampling=state.request.sampling,
                pooling=state.request.pooling,
            )
        )
        self._advance(state, plan, hit.block_ids)

    def _fail_if_too_big(self, state: RequestState) -> bool:
        """End a request whose tokens would not fit even if it had the whole cache for itself."""
        message = why_too_big(len(state.token_ids), self._kv_cache)
        if message is None:
            return False
        self._outputs.append(self._tell(state, stop=Stop(FinishReason.ERROR), error=message))
        return True

    def _seal(self, plan: StepPlan) -> SchedulerOutput:
        self._totals.num_steps += 1
        if not plan.parts:  # not computed, so what ranks must hear waits for the next step
            return SchedulerOutput(self._totals.num_steps, (), (), (), ())
        drafting = self._speculation.extend(plan.parts, plan.states, plan.num_tokens_left)
        self._in_flight.append(_StepInFlight(self._totals.num_steps, plan.states))
        for state in plan.states:
            state.num_in_flight += 1
        self._tiers.begin_step(plan.num_tokens - plan.num_tokens_left, len(plan.parts))
        preempted_ids, finished_ids = self._lives.take_news()
        output = SchedulerOutput(
            step=self._totals.num_steps,
            new_requests=tuple(plan.new_requests),
            scheduled=tuple(plan.parts),
            preempted_ids=preempted_ids,
            finished_ids=finished_ids,
            drafting=drafting,
        )
        return output

    # Parts of update

    def _apply(
        self, state: RequestState, part: ScheduledTokens, result: StepResult
    ) -> EngineOutput | None:
        """Bring one request up to date with its result; None if there is nothing to tell."""
        if result.error is not None:
            return self._tell(state, stop=Stop(FinishReason.ERROR), error=result.error)
        end = part.start + part.num_tokens
        if part.draft_token_ids:  # wrong guesses do not count
            end -= 1 + len(part.draft_token_ids) - len(result.token_ids)
            state.num_planned_tokens = end
        state.num_computed_tokens = end
        if state.blocks.num_settled > state.num_offered_blocks:
            self._tiers.offer(state)
        if part.start < state.num_prompt_tokens:
            num_tokens = min(end, state.num_prompt_tokens) - part.start
            state.engine_totals.prompt_tokens += num_tokens
            state.totals.prompt_tokens += num_tokens
        prompt_logprobs = new_prompt_logprobs(state, part, result.prompt_logprobs)
        if end < len(state.token_ids):
            return self._tell(state, prompt_logprobs=prompt_logprobs) if prompt_logprobs else None
        if state.request.pooling is not None:
            assert result.embedding is not None, f"{part.request_id} was computed but not pooled"
            return self._tell(state, stop=Stop(FinishReason.STOP), embedding=result.embedding)
        return self._append(state, result, prompt_logprobs)

    def _append(
        self,
        state: RequestState,
        result: StepResult,
        prompt_logprobs: tuple[PositionLogprobs, ...],
    ) -> EngineOutput:
        """Add the sampled tokens, up to the one that ends the request if there is such a one."""
        assert result.token_ids, f"nothing was sampled for {result.request_id}"
        conditions = state.stop_conditions
        if conditions.max_output_tokens == 0:  # only the prompt was of interest
            stop = Stop(FinishReason.LENGTH)
            return self._tell(state, prompt_logprobs=prompt_logprobs, stop=stop)
        num_taken, ending = take_tokens(state, result.token_ids)
        state.engine_totals.generation_tokens += num_taken
        state.totals.generation_tokens += num_taken
        self._waiting.see_output(state, num_taken)
        return self._tell(
            state,
            result.token_ids[:num_taken],
            result.logprobs[:num_taken],
            prompt_logprobs,
            stop=ending,
        )

    # How a request is told and ended

    def _tell(
        self,
        state: RequestState,
        new_token_ids: tuple[int, ...] = (),
        logprobs: tuple[PositionLogprobs, ...] = (),
        prompt_logprobs: tuple[PositionLogprobs, ...] = (),
        *,
        embedding: tuple[float, ...] | None = None,
        stop: Stop | None = None,
        error: str | None = None,
        was_shed: bool = False,
    ) -> EngineOutput:
        """The news of a request. With `stop` they are its last, and it ends here: the only place
        where one does."""
        is_first, state.has_output = not state.has_output, True
        if stop is not None:
            self._lives.retire(state, failed=error is not None and not was_shed)
        return EngineOutput(
            request_id=state.request.request_id,
            new_token_ids=new_token_ids,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            embedding=embedding,
            finish_reason=None if stop is None else stop.reason,
            stop_token_id=None if stop is None else stop.token_id,
            error=error,
            num_cached_tokens=state.num_cached_tokens,
            first_scheduled_time_s=(
                state.first_scheduled_time_s if is_first or stop is not None else None
            ),
            was_shed=was_shed,
        )

    def _take_outputs(self) -> list[EngineOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs
