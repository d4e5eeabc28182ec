"""SchedulerDriver: a real scheduler over a FakeExecutor, with its promises checked in each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.output import EngineOutput, ModelSpec
from novacron.records.request import FinishReason, Request
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.scheduler.adaptive_speculation import AdaptiveSpeculation
from novacron.scheduler.draft_speculation import DraftModelSpeculation
from novacron.scheduler.fetch_choice import FetchChoice
from novacron.scheduler.guesser import Drafter
from novacron.scheduler.prefetch import Prefetcher
from novacron.scheduler.scheduler import Scheduler
from novacron.scheduler.speculation import NoSpeculation, Speculation
from novacron.scheduler.stopping import StopConditions
from novacron.scheduler.tiered_prefixes import TieredPrefixes
from novacron.testing.clock import FakeClock
from novacron.testing.fake_executor import FakeExecutor, hashed_token


class SchedulerDriver:
    """`scheduler.add` requests, then `step` or `run`. `outputs` collects what came out, by request.

    With `new_drafter`, or the executor's draft model (`has_draft_model`), requests are speculated
    upon, as far ahead as if guesses cost nothing.

    A broken promise raises AssertionError: blocks that do not add up, a step above its limits, a
    running request that a step leaves out though the policy has no reason to, an output after the
    last. Tiers of the executor are used.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        executor: FakeExecutor,
        *,
        enable_prefix_caching: bool = True,
        new_drafter: Callable[[], Drafter] | None = None,
        has_draft_model: bool = False,
        prefetcher: Prefetcher | None = None,
        choice: FetchChoice | None = None,
        most_live: int | None = None,
    ) -> None:
        self.config = config
        self.executor = executor
        self.clock = FakeClock()
        self.outputs: dict[str, list[EngineOutput]] = {}
        spec = executor.spec
        self.kv_cache = KVCacheManager(
            spec.num_blocks,
            spec.block_size,
            model_version=spec.model_version,
            kv_dtype=spec.kv_identity,
            enable_prefix_caching=enable_prefix_caching,
        )
        self.kv_tiers: TieredPrefixes | None = None
        if executor.tiers is not None:
            self.kv_tiers = TieredPrefixes(
                self.kv_cache,
                executor.tiers.specs,
                self.clock,
                choice,
                prefetcher=prefetcher,
            )
        self.scheduler = Scheduler(
            config,
            self.kv_cache,
            max_model_len=spec.max_model_len,
            eos_token_ids=frozenset(spec.eos_token_ids),
            speculation=self._speculation(new_drafter, has_draft_model),
            tiers=self.kv_tiers,
            max_in_flight=executor.max_steps_in_flight,
            most_live=most_live,
            clock=self.clock,
        )
        self._in_flight: deque[SchedulerOutput] = deque()

    def _speculation(
        self, new_drafter: Callable[[], Drafter] | None, has_draft_model: bool
    ) -> Speculation:
        if has_draft_model:
            return DraftModelSpeculation(
                self.kv_cache,
                num_speculative_tokens=4,
                max_num_seqs=self.config.max_num_seqs,
                context_length=self.executor.spec.max_model_len,
                clock=self.clock,
            )
        if new_drafter is None:
            return NoSpeculation()
        return AdaptiveSpeculation(
            self.kv_cache,
            new_drafter,
            num_speculative_tokens=4,
            max_num_seqs=self.config.max_num_seqs,
            clock=self.clock,
        )

    def schedule(self) -> SchedulerOutput:
        """The first half of `step`, for tests that do something while a step is computed."""
        while (news := self.executor.block_news()) is not None:
            self.scheduler.see_block_news(news)
        decision = self.scheduler.schedule()
        self._order_blocks()
        self.kv_cache.check_integrity()
        assert decision.num_tokens <= self.config.max_num_batched_tokens
        assert len(decision.scheduled) <= self.config.max_num_seqs
        if decision.scheduled:
            is_strict = self.config.scheduling_policy in ("fcfs", "priority")
            if self.executor.max_steps_in_flight == 1 and is_strict:
                assert len(decision.scheduled) == self.scheduler.stats().num_running
        else:
            assert decision == SchedulerOutput(decision.step, (), (), (), ())
        return decision

    def finish(self, decision: SchedulerOutput) -> SchedulerOutput:
        """The second half of `step`, where one is in flight at a time. Returns the decision as it
        was computed."""
        self._submit(decision)
        return self._collect() if self._in_flight else self._see_nothing(decision)

    def _submit(self, decision: SchedulerOutput) -> None:
        if decision.drafting:
            num_drafting = sum(work.num_tokens for work in decision.drafting)
            assert num_drafting <= self.config.max_num_batched_tokens
            decision = self.scheduler.add_drafts(decision, self.executor.draft(decision))
            assert decision.num_tokens <= self.config.max_num_batched_tokens
        if decision.scheduled:
            self.executor.submit(decision)
            self._in_flight.append(decision)

    def _collect(self) -> SchedulerOutput:
        decision = self._in_flight.popleft()
        return self._see(decision, self.executor.collect())

    def _see_nothing(self, decision: SchedulerOutput) -> SchedulerOutput:
        return self._see(decision, ModelRunnerOutput(decision.step, ()))

    def _see(self, decision: SchedulerOutput, result: ModelRunnerOutput) -> SchedulerOutput:
        self.collect(self.scheduler.update(decision, result))
        self._order_blocks()
        self.kv_cache.check_integrity()
        return decision

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    def _order_blocks(self) -> None:
        orders = self.scheduler.take_block_orders()
        if orders is not None:
            self.executor.move_blocks(orders)

    def step(self) -> SchedulerOutput:
        """Begin as many steps as may be in flight, and see the result of the first. Returns its
        decision, or one that has nothing."""
        while self.num_in_flight < self.executor.max_steps_in_flight:
            decision = self.schedule()
            self._submit(decision)
            if not decision.scheduled:
                break
        return self._collect() if self._in_flight else self._see_nothing(decision)

    def run(self, max_steps: int = 2000) -> list[SchedulerOutput]:
        """Step until all work is done, and tiers too, before each step; AssertionError if that
        takes more than `max_steps`."""
        decisions: list[SchedulerOutput] = []
        while self.scheduler.has_work or self._in_flight:
            if self.executor.tiers is not None:
                self.executor.tiers.work()
            assert len(decisions) < max_steps, "the scheduler does not come to an end"
            decisions.append(self.step())
        return decisions

    def lose_blocks(self) -> None:
        """As after BlocksLost."""
        self._in_flight.clear()
        self.executor.lose_blocks()
        self.scheduler.lose_blocks()
        self.kv_cache.check_integrity()
        assert self.kv_cache.num_cached_blocks == 0

    def abort(self, request_id: str) -> None:
        output = self.scheduler.abort(request_id)
        assert output is not None, f"{request_id} is not live"
        self.collect([output])
        self.kv_cache.check_integrity()

    def collect(self, outputs: Iterable[EngineOutput]) -> None:
        for output in outputs:
            earlier = self.outputs.setdefault(output.request_id, [])
            assert all(o.finish_reason is None for o in earlier), f"output after the last: {output}"
            assert (output.error is not None) == (output.finish_reason is FinishReason.ERROR)
            earlier.append(output)

    def tokens(self, request_id: str) -> list[int]:
        """All new tokens of a request so far."""
        return [t for output in self.outputs[request_id] for t in output.new_token_ids]

    def final(self, request_id: str) -> EngineOutput:
        final = self.outputs[request_id][-1]
        assert final.finish_reason is not None, f"{request_id} has not ended"
        return final


def expected_tokens(request: Request, spec: ModelSpec) -> tuple[list[int], FinishReason]:
    """What the request comes to on a FakeExecutor, wherever and beside whatever it runs."""
    conditions = StopConditions.resolve(
        request.sampling,
        num_prompt_tokens=len(request.prompt_token_ids),
        max_model_len=spec.max_model_len,
        eos_token_ids=frozenset(spec.eos_token_ids),
    )
    output = list(request.output_token_ids)
    new: list[int] = []
    while True:
        stop = conditions.after(output[-1], len(output)) if output else None
        if stop is not None:
            return new, stop.reason
        if conditions.max_output_tokens == 0:
            return new, FinishReason.LENGTH
        new.append(hashed_token([*request.prompt_token_ids, *output]) % spec.vocab_size)
        output.append(new[-1])
