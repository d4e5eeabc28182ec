"""Speculation by a draft model, on a FakeExecutor whose draft model checks every token it reads.

That it changes no token whatever comes: test_scheduler_invariants, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import msgspec

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.request import Request, SamplingParams
from novacron.records.step import (
    DraftOutput,
    DraftPart,
    DraftPass,
    ScheduledTokens,
    SchedulerOutput,
    StepResult,
)
from novacron.scheduler.draft_speculation import DraftModelSpeculation
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.speculation import with_drafts
from novacron.scheduler.stopping import StopConditions
from novacron.testing.clock import FakeClock
from novacron.testing.fake_executor import FakeExecutor, fake_spec, hashed_token
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

VOCAB_SIZE = 50


def wrong_token(token_ids: Sequence[int]) -> int:
    return hashed_token(token_ids) % VOCAB_SIZE + 1


def often_right(token_ids: Sequence[int]) -> int:
    """Wrong every third time."""
    token_id = hashed_token(token_ids)
    return token_id % VOCAB_SIZE + (token_id // VOCAB_SIZE % 3 == 0)


def make_request(name: str, num_prompt_tokens: int = 5, **sampling: object) -> Request:
    params = {"max_tokens": 12, "ignore_eos": True, "seed": 0, **sampling}
    return Request(
        request_id=name,
        prompt_token_ids=tuple(place % 7 + 1 for place in range(num_prompt_tokens)),
        sampling=SamplingParams(**params),  # type: ignore[arg-type]
        arrival_time_s=0.0,
    )


def run(
    *requests: Request,
    draft_token: Callable[[Sequence[int]], int] = hashed_token,
    num_blocks: int = 64,
    fail_drafts_of: Collection[str] = (),
    **config: object,
) -> tuple[SchedulerDriver, list[SchedulerOutput]]:
    """Runs the requests; their tokens are those without speculation."""
    spec = fake_spec(vocab_size=VOCAB_SIZE, block_size=4, num_blocks=num_blocks)
    limits = SchedulerConfig(**{"max_num_seqs": 8, "max_num_batched_tokens": 64, **config})  # type: ignore[arg-type]
    executor = FakeExecutor(spec, draft_token=draft_token, fail_drafts_of=fail_drafts_of)
    driver = SchedulerDriver(limits, executor, has_draft_model=True)
    for request in requests:
        driver.scheduler.add(request)
    decisions = driver.run()
    for request in requests:
        assert driver.tokens(request.request_id) == expected_tokens(request, spec)[0]
    return driver, decisions


def work_of(decisions: Sequence[SchedulerOutput], name: str) -> list[DraftPart]:
    return [work for step in decisions for work in step.drafting if work.request_id == name]


def test_right_guesses_save_steps_from_the_second_token_on() -> None:
    driver, decisions = run(make_request("r", max_tokens=12))
    guesses = [len(part.draft_token_ids) for step in decisions for part in step.scheduled]
    assert guesses == [0, 4, 4, 0]  # 1 + 5 + 5 + 1 tokens
    stats = driver.scheduler.stats()
    assert (stats.num_drafts, stats.num_draft_tokens, stats.num_accepted_tokens) == (2, 8, 8)
    assert stats.speculative_method == "draft"


def test_it_computes_only_what_it_has_not_seen() -> None:
    """Of right guesses only the last, which it made but did not read; wrong ones never count."""
    _, decisions = run(make_request("r", max_tokens=30))
    work = work_of(decisions, "r")
    assert (work[0].start, work[0].num_tokens) == (0, 6)
    for earlier, later in pairwise(work):
        assert later.start == earlier.start + earlier.num_tokens + earlier.num_drafts - 1
        assert later.num_tokens == 2
    _, decisions = run(make_request("r", max_tokens=30), draft_token=wrong_token)
    for earlier, later in pairwise(work_of(decisions, "r")):
        assert later.start == earlier.start + earlier.num_tokens


def test_a_shared_prefix_is_computed_once() -> None:
    """Both within a step and later, from the cache."""
    requests = [make_request(str(index), 17, max_tokens=4) for index in range(2)]
    spec = fake_spec(vocab_size=VOCAB_SIZE, block_size=4)
    driver = SchedulerDriver(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        FakeExecutor(spec, draft_token=hashed_token),
        has_draft_model=True,
    )
    for request in requests:
        driver.scheduler.add(request)
    decisions = driver.run()
    assert work_of(decisions, "0")[0].start == 0
    assert work_of(decisions, "1")[0].start == 16
    later = make_request("later", 17, max_tokens=4)
    driver.scheduler.add(later)
    assert work_of(driver.run(), "later")[0].start == 16
    assert driver.tokens("later") == expected_tokens(later, spec)[0]


def test_a_prompt_longer_than_the_budget_is_caught_up_in_parts() -> None:
    prompt = make_request("long", 60, max_tokens=20)
    _, decisions = run(prompt, max_num_seqs=2, max_num_batched_tokens=16)
    work = work_of(decisions, "long")
    assert sum(one.num_drafts == 0 for one in work) >= 3
    assert all(one.num_tokens <= 16 for one in work)
    assert sum(one.num_drafts for one in work) > 0


def test_preempted_requests_are_seen_again() -> None:
    """What of their blocks has not been given to others is not computed again."""
    requests = [make_request(str(index), 6 + index, max_tokens=25) for index in range(4)]
    for caching in (True, False):
        spec = fake_spec(vocab_size=VOCAB_SIZE, block_size=4, num_blocks=20)
        driver = SchedulerDriver(
            SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
            FakeExecutor(spec, draft_token=often_right),
            enable_prefix_caching=caching,
            has_draft_model=True,
        )
        for request in requests:
            driver.scheduler.add(request)
        driver.run()
        stats = driver.scheduler.stats()
        assert stats.num_preemptions > 0
        assert stats.num_accepted_tokens > 0
        for request in requests:
            assert driver.tokens(request.request_id) == expected_tokens(request, spec)[0]


def test_without_usable_numbers_there_are_no_guesses() -> None:
    """Nor for who has seen the same blocks in that step; but once it is given up, for that one."""
    requests = [make_request(name, 9, max_tokens=60) for name in ("broken", "fine")]
    driver, decisions = run(*requests, fail_drafts_of=("broken",))
    parts = [part for step in decisions for part in step.scheduled]
    assert not any(part.draft_token_ids for part in parts if part.request_id == "broken")
    assert driver.scheduler.stats().num_accepted_tokens > 0


def test_guesses_take_only_what_is_left() -> None:
    requests = [make_request(str(index)) for index in range(4)]
    _, decisions = run(*requests, max_num_seqs=4, max_num_batched_tokens=6)
    assert max(step.num_tokens for step in decisions) == 6
    driver, _ = run(*requests, num_blocks=17, draft_token=wrong_token)
    assert driver.scheduler.stats().num_preemptions == 0


def test_nothing_is_guessed_beyond_the_draft_models_context() -> None:
    bench = Bench(1, context_length=9)
    assert bench.step() == 3.0  # 6 tokens are known
    bench.states[0].token_ids += [0, 0, 0]
    assert bench.step() == 0.0


class Bench:
    """Where steps, and passes of the draft model, of so many tokens take so long."""

    def __init__(
        self,
        num_seqs: int,
        *,
        step_s: tuple[float, float] = (1.0, 0.01),
        pass_s: tuple[float, float] = (0.1, 0.001),
        num_right: int = 4,
        context_length: int = 2000,
    ) -> None:
        self.clock = FakeClock()
        self._step_s, self._pass_s = step_s, pass_s
        self.num_right = num_right
        self._kv_cache = KVCacheManager(4096, 16, model_version="v", kv_dtype="f")
        self._speculation = DraftModelSpeculation(
            self._kv_cache,
            num_speculative_tokens=4,
            max_num_seqs=64,
            context_length=context_length,
            clock=self.clock,
        )
        self.states = [self._state(index) for index in range(num_seqs)]

    def _state(self, index: int) -> RequestState:
        request = make_request(str(index), max_tokens=1000)
        conditions = StopConditions.resolve(
            request.sampling, num_prompt_tokens=5, max_model_len=2000, eos_token_ids=frozenset()
        )
        table = self._kv_cache.open_table(str(index))
        self._kv_cache.extend(table, (), 6)
        return RequestState(request, index, [*request.prompt_token_ids, 0], table, conditions)

    def step(self) -> float:
        """Drafts for each request of the step, on average."""
        parts = [ScheduledTokens(s.request.request_id, 5, 1, ()) for s in self.states]
        drafting = self._begin(parts)
        lengths = {work.request_id: work.num_drafts for work in drafting}
        parts = [with_drafts(part, (0,) * lengths.get(part.request_id, 0)) for part in parts]
        self.clock.advance(self._time_s(self._step_s, sum(part.num_tokens for part in parts)))
        results = [
            StepResult(part.request_id, (0,) * (1 + min(self.num_right, part.num_tokens - 1)))
            for part in parts
        ]
        self._speculation.observe(parts, self.states, results)
        return sum(part.num_tokens - 1 for part in parts) / len(parts)

    def lose_step(self) -> None:
        """One that guesses have been made for."""
        assert self._begin([ScheduledTokens(s.request.request_id, 5, 1, ()) for s in self.states])
        assert all(
            state.draft_progress and state.draft_progress.num_drafted for state in self.states
        )
        self._speculation.forget_steps(self.states)

    def _begin(self, parts: list[ScheduledTokens]) -> tuple[DraftPart, ...]:
        drafting = self._speculation.extend(parts, self.states, 1000)
        if drafting:
            states = [self.states[int(work.request_id)] for work in drafting]
            self._speculation.see_drafts(drafting, states, self._draft(drafting))
        return drafting

    def _draft(self, drafting: Sequence[DraftPart]) -> DraftOutput:
        rows = [sum(work.num_tokens for work in drafting)]
        longest = max(work.num_drafts for work in drafting)
        rows += [sum(work.num_drafts > place for work in drafting) for place in range(1, longest)]
        passes = tuple(DraftPass(count, self._time_s(self._pass_s, count)) for count in rows)
        self.clock.advance(sum(one.seconds for one in passes))
        return DraftOutput(0, tuple((0,) * work.num_drafts for work in drafting), passes)

    def _time_s(self, line: tuple[float, float], num_tokens: int) -> float:
        return line[0] + line[1] * num_tokens

    def average(self, num_steps: int = 400) -> float:
        for _ in range(100):
            self.step()
        return sum(self.step() for _ in range(num_steps)) / num_steps


def test_it_guesses_as_far_as_it_is_right() -> None:
    assert Bench(1).average() > 3.8
    assert 0.9 <= Bench(1, num_right=1).average() <= 2.5
    assert Bench(1, num_right=0).average() < 0.1


def test_where_it_does_not_pay_it_turns_itself_off() -> None:
    """A draft model slower than the model; a step in which tokens cost as much as any."""
    assert Bench(1, pass_s=(2.0, 0.0)).average() < 0.1
    assert Bench(32, step_s=(0.1, 1.0), pass_s=(0.2, 0.1), num_right=1).average() < 0.1


def test_a_batch_shares_the_passes() -> None:
    """A pass of half a step, which delays all eight, is worth a token for each."""
    assert Bench(8, pass_s=(0.5, 0.0)).average() > 3.0


def test_it_is_tried_again() -> None:
    """Of requests that were not worth it, the text may become one that is."""
    bench = Bench(1, num_right=0)
    assert bench.average() < 0.1
    bench.num_right = 4
    assert bench.average(num_steps=1000) > 2.0


def test_a_new_request_is_expected_to_be_like_the_others() -> None:
    bench = Bench(4, num_right=0)
    bench.average()
    bench.states[0].draft_progress = None
    first = [bench.step() for _ in range(3)]
    assert sum(first) <= 0.5


def test_guesses_for_a_step_without_a_result_are_forgotten() -> None:
    bench = Bench(1)
    bench.average(num_steps=10)
    progress = bench.states[0].draft_progress
    assert progress is not None
    learnt = progress.acceptance
    bench.lose_step()
    assert (progress.num_drafted, progress.acceptance) == (0, learnt)
    assert bench.average() > 3.8


def test_guesses_that_a_grammar_drops_count_as_wrong() -> None:
    """They are cut off the decision after they were made."""
    driver, decision = _first_drafted_step()
    computed = driver.scheduler.add_drafts(decision, driver.executor.draft(decision))
    [part] = computed.scheduled
    cut = msgspec.structs.replace(part, num_tokens=2, draft_token_ids=part.draft_token_ids[:1])
    computed = msgspec.structs.replace(computed, scheduled=(cut,))
    driver.collect(driver.scheduler.update(computed, driver.executor.execute(computed)))
    stats = driver.scheduler.stats()
    assert (stats.num_draft_tokens, stats.num_accepted_tokens) == (1, 1)
    next_work = driver.step().drafting[0]
    assert next_work.num_tokens == 1, "of the guesses it has seen, one was right"
    driver.run()
    spec = driver.executor.spec
    assert driver.tokens("r") == expected_tokens(make_request("r"), spec)[0]


def _first_drafted_step() -> tuple[SchedulerDriver, SchedulerOutput]:
    spec = fake_spec(vocab_size=VOCAB_SIZE, block_size=4)
    driver = SchedulerDriver(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        FakeExecutor(spec, draft_token=hashed_token),
        has_draft_model=True,
    )
    driver.scheduler.add(make_request("r"))
    driver.step()
    return driver, driver.schedule()
