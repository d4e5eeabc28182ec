"""What must hold whatever comes, in whatever order (DESIGN.md, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from novacron.config.scheduler import SchedulerConfig
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_executor import FakeExecutor, fake_spec, hashed_token
from novacron.testing.fake_tiers import FakeTiers, FetchFirst
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

MAX_MODEL_LEN = 40
BLOCK_SIZE = 4
VOCAB_SIZE = 50

# Few different tokens and lengths, so that prefixes are often shared.
prompts = st.builds(
    lambda prefix, tail: (*prefix, *tail),
    st.sampled_from([(), (1,) * 4, (1,) * 8, (1,) * 16, (1, 1, 1, 1, 2, 2, 2, 2), (3,) * 30]),
    st.lists(st.integers(1, 2), min_size=1, max_size=8),
)

sampling_params = st.builds(
    SamplingParams,
    max_tokens=st.sampled_from([None, 0, 1, 2, 5, 12]),
    min_tokens=st.sampled_from([0, 0, 3]),
    ignore_eos=st.booleans(),
    stop_token_ids=st.sampled_from([(), (), tuple(range(10))]),
    logprobs=st.sampled_from([None, 0]),
    prompt_logprobs=st.sampled_from([None, None, 0]),
    seed=st.just(0),
)


class Oracle:
    """Drafts what a FakeExecutor will choose, but every so often, at any place, something else."""

    def __init__(self, error_period: int) -> None:
        self._error_period = error_period

    def draft(self, token_ids: Sequence[int], max_drafts: int) -> tuple[int, ...]:
        drafts: list[int] = []
        for _ in range(max_drafts):
            number = hashed_token([*token_ids, *drafts])
            is_wrong = number // VOCAB_SIZE % self._error_period == 0
            drafts.append((number + is_wrong) % VOCAB_SIZE)
        return tuple(drafts)


def oracle_token(error_period: int, token_ids: Sequence[int]) -> int:
    """The same, as a draft model."""
    return Oracle(error_period).draft(token_ids, 1)[0]


class AnyLoad(RuleBasedStateMachine):
    """Requests of every kind, guessed ahead or not, come, run, fail and are aborted in a cache that
    is too small, above tiers that are, too, and that move blocks when they like. Without tiers,
    several steps may be in flight, and requests are aborted while they are."""

    @initialize(
        num_blocks=st.integers(4, 24),
        max_num_seqs=st.integers(1, 5),
        extra_budget=st.integers(0, 20),
        policy=st.sampled_from(["fair", "fair", "fcfs", "priority", "deadline"]),
        chunked=st.booleans(),
        caching=st.booleans(),
        tokens_per_step=st.integers(1, 3),
        draft_error_period=st.sampled_from([None, 1, 2, 4, 10_000]),
        has_draft_model=st.booleans(),
        fail_at=st.dictionaries(
            st.integers(0, 9).map("r{}".format), st.integers(0, 20), max_size=2
        ),
        tier_sizes=st.sampled_from([(), (6,), (3, 40), (100,)]),
        lost_every=st.sampled_from([1, 3, 10_000, 10_000]),
        most_fetched=st.sampled_from([0, 1, 2, 10_000, 10_000]),
        max_in_flight=st.sampled_from([1, 1, 2, 4]),
    )
    def start(
        self,
        num_blocks: int,
        max_num_seqs: int,
        extra_budget: int,
        policy: str,
        chunked: bool,
        caching: bool,
        tokens_per_step: int,
        draft_error_period: int | None,
        has_draft_model: bool,
        fail_at: dict[str, int],
        tier_sizes: tuple[int, ...],
        lost_every: int,
        most_fetched: int,
        max_in_flight: int,
    ) -> None:
        self.tiers = None
        self.max_in_flight = max_in_flight
        if tier_sizes:
            self.tiers = FakeTiers(
                *tier_sizes, is_lost=lambda key: int.from_bytes(key) % lost_every == 0
            )
        period = draft_error_period
        is_drafting = has_draft_model and period is not None
        self.fail_at = fail_at
        self.requests: dict[str, Request] = {}
        self.spec = fake_spec(
            num_blocks=num_blocks,
            block_size=BLOCK_SIZE,
            max_model_len=MAX_MODEL_LEN,
            vocab_size=VOCAB_SIZE,
        )
        self.driver = SchedulerDriver(
            SchedulerConfig(
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_seqs + extra_budget,
                scheduling_policy=policy,
                enable_chunked_prefill=chunked,
            ),
            FakeExecutor(
                self.spec,
                tokens_per_step=tokens_per_step,
                fail_at=fail_at,
                draft_token=period and partial(oracle_token, period) if is_drafting else None,
                fail_drafts_of=("r1", "r4"),
                tiers=self.tiers,
                max_steps_in_flight=max_in_flight,
            ),
            enable_prefix_caching=caching,
            new_drafter=None if is_drafting else period and (lambda: Oracle(period)),
            has_draft_model=is_drafting,
            choice=FetchFirst(most_fetched),
        )

    @rule(
        prompt=prompts,
        sampling=sampling_params,
        salt=st.sampled_from(["", "", "tenant"]),
        tenant=st.sampled_from(["", "a", "b"]),
        priority=st.integers(0, 2),
        pooling=st.sampled_from([None, None, None, "mean", "last"]),
        continued=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=3),
        copies=st.sampled_from([1, 1, 1, 3]),
    )
    def add(
        self,
        prompt: tuple[int, ...],
        sampling: SamplingParams,
        salt: str,
        tenant: str,
        priority: int,
        pooling: str | None,
        continued: list[int],
        copies: int,
    ) -> None:
        for _ in range(copies):
            request = Request(
                request_id=f"r{len(self.requests)}",
                prompt_token_ids=prompt,
                sampling=sampling,
                arrival_time_s=0.0,
                priority=priority,
                cache_salt=salt,
                tenant=tenant,
                weight=1.0 + len(tenant),
                ttft_slo_s=float(priority),
                pooling=pooling,
                output_token_ids=() if pooling else tuple(continued[: MAX_MODEL_LEN - len(prompt)]),
            )
            self.requests[request.request_id] = request
            self.driver.scheduler.add(request)

    @precondition(lambda self: self.driver.scheduler.has_work)
    @rule(num_steps=st.integers(1, 4))
    def step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.driver.step()

    @precondition(lambda self: self.tiers is not None)
    @rule(num_stores=st.integers(0, 4), num_loads=st.integers(0, 2))
    def move_blocks(self, num_stores: int, num_loads: int) -> None:
        self.tiers.work(num_stores, num_loads)

    @rule()
    def lose_blocks(self) -> None:
        self.driver.lose_blocks()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.driver.abort(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: self.live and self.max_in_flight == 1)
    @rule(data=st.data())
    def abort_while_a_step_is_computed(self, data: st.DataObject) -> None:
        decision = self.driver.schedule()
        if self.live:
            self.driver.abort(data.draw(st.sampled_from(self.live)))
        self.driver.finish(decision)

    @property
    def live(self) -> list[str]:
        return list(self.driver.scheduler._live)

    @invariant()
    def running_requests_stand_in_their_order(self) -> None:
        running = self.driver.scheduler._running
        match self.driver.config.scheduling_policy:
            case "priority":
                order = [(s.request.priority, s.arrival_index) for s in running]
            case "fcfs":
                order = [(0, s.arrival_index) for s in running]
            case "deadline":
                order = []
            case "fair":
                order = [(s.level, 0) for s in running]
        assert order == sorted(order)

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.run()
        if self.tiers is not None:
            self.tiers.work()
            self.driver.step()  # loads of requests that were aborted
            self.driver.kv_tiers.index.check_integrity()
        assert self.driver.outputs.keys() == self.requests.keys(), "one without any output"
        for request in self.requests.values():
            self.check_result(request)
        for reader, writer in self.driver.executor.reads:
            assert self.requests[reader].cache_salt == self.requests[writer].cache_salt
        stats = self.driver.scheduler.stats()
        assert (stats.num_running, stats.num_waiting, stats.num_used_blocks) == (0, 0, 0)
        assert stats.num_accepted_tokens <= stats.num_draft_tokens
        assert stats.generation_tokens == sum(len(self.driver.tokens(id)) for id in self.requests)

    def check_result(self, request: Request) -> None:
        final = self.driver.final(request.request_id)
        tokens = self.driver.tokens(request.request_id)
        expected, reason = expected_tokens(request, self.spec)
        if final.finish_reason is FinishReason.ERROR:
            self.check_error(request, final.error, len(tokens))
        if final.finish_reason in (FinishReason.ERROR, FinishReason.ABORT):
            assert tokens == expected[: len(tokens)]
        elif request.pooling is not None:
            assert final.finish_reason is FinishReason.STOP
            assert final.embedding is not None
            assert tokens == []
        else:
            assert (tokens, final.finish_reason) == (expected, reason)
            self.check_logprobs(request, len(expected))

    def check_error(self, request: Request, error: str | None, num_new_tokens: int) -> None:
        assert error is not None
        if "injected" in error:
            assert self.fail_at
            return
        known = len(request.prompt_token_ids) + len(request.output_token_ids) + num_new_tokens
        assert "whole cache" in error
        assert known > self.spec.num_blocks * BLOCK_SIZE

    def check_logprobs(self, request: Request, num_tokens: int) -> None:
        outputs = self.driver.outputs[request.request_id]
        positions = [p.token_ids[0] for o in outputs for p in o.prompt_logprobs]
        has_run = outputs[-1].first_scheduled_time_s is not None
        if request.sampling.prompt_logprobs is not None and has_run:
            assert positions == list(request.prompt_token_ids[1:])
        else:
            assert positions == []
        num_logprobs = sum(len(o.logprobs) for o in outputs)
        assert num_logprobs == (num_tokens if request.sampling.logprobs is not None else 0)


AnyLoad.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAnyLoad = AnyLoad.TestCase
