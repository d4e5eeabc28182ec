"""Speculation on a FakeExecutor. That it changes no token: test_scheduler_invariants, too."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.config.engine import SpeculativeConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.request import Pooling, Request, SamplingParams
from novacron.records.step import ScheduledTokens, SchedulerOutput, StepResult
from novacron.scheduler.adaptive_speculation import AdaptiveSpeculation
from novacron.scheduler.draft_speculation import DraftModelSpeculation
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.speculation import NoSpeculation
from novacron.scheduler.speculation_choice import build_speculation
from novacron.scheduler.stopping import StopConditions
from novacron.testing.clock import FakeClock
from novacron.testing.fake_executor import FakeExecutor, fake_spec, hashed_token
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

VOCAB_SIZE = 50


class Always:
    """Drafts that are always right, or always wrong."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset

    def draft(self, token_ids: Sequence[int], max_drafts: int) -> tuple[int, ...]:
        drafts: list[int] = []
        for _ in range(max_drafts):
            drafts.append((hashed_token([*token_ids, *drafts]) + self._offset) % VOCAB_SIZE)
        return tuple(drafts)


def make_request(name: str = "r", pooling: Pooling | None = None, **sampling: object) -> Request:
    params = {"max_tokens": 12, "ignore_eos": True, "seed": 0, **sampling}
    return Request(
        request_id=name,
        prompt_token_ids=(1, 2, 3, 4, 5),
        sampling=SamplingParams(**params),  # type: ignore[arg-type]
        arrival_time_s=0.0,
        pooling=pooling,
    )


def run(
    *requests: Request, offset: int = 0, num_blocks: int = 64, **config: int
) -> tuple[SchedulerDriver, list[SchedulerOutput]]:
    """Runs the requests; their tokens are those without speculation."""
    spec = fake_spec(vocab_size=VOCAB_SIZE, block_size=4, num_blocks=num_blocks)
    limits = SchedulerConfig(**{"max_num_seqs": 8, "max_num_batched_tokens": 64, **config})  # type: ignore[arg-type]
    driver = SchedulerDriver(limits, FakeExecutor(spec), new_drafter=lambda: Always(offset))
    for request in requests:
        driver.scheduler.add(request)
    decisions = driver.run()
    for request in requests:
        if request.pooling is None:
            assert driver.tokens(request.request_id) == expected_tokens(request, spec)[0]
    return driver, decisions


def num_drafts(decisions: list[SchedulerOutput]) -> list[int]:
    return [sum(len(part.draft_token_ids) for part in step.scheduled) for step in decisions]


def test_right_guesses_save_steps_from_the_prompt_on() -> None:
    driver, decisions = run(make_request(max_tokens=12))
    assert num_drafts(decisions) == [4, 4, 1]  # 5 + 5 + 2 tokens
    stats = driver.scheduler.stats()
    assert (stats.num_drafts, stats.num_draft_tokens, stats.num_accepted_tokens) == (3, 9, 9)
    assert stats.generation_tokens == 12


def test_wrong_guesses_are_counted_and_change_nothing() -> None:
    driver, decisions = run(make_request(max_tokens=12), offset=1)
    assert len([step for step in decisions if step.scheduled]) == 12
    stats = driver.scheduler.stats()
    assert stats.num_accepted_tokens == 0
    assert stats.num_draft_tokens == sum(num_drafts(decisions)) > 0


def test_no_guess_goes_beyond_the_last_token() -> None:
    _, decisions = run(make_request(max_tokens=1))
    assert num_drafts(decisions) == [0]
    _, decisions = run(make_request(max_tokens=3))
    assert num_drafts(decisions) == [2]


def test_requests_that_have_no_use_for_guesses_get_none() -> None:
    for request in (make_request(pooling="mean"), make_request(prompt_logprobs=0)):
        _, decisions = run(request)
        assert sum(num_drafts(decisions)) == 0


def test_guesses_take_only_budget_that_is_left() -> None:
    requests = [make_request(str(index)) for index in range(4)]
    _, decisions = run(*requests, max_num_seqs=4, max_num_batched_tokens=6)
    assert max(step.num_tokens for step in decisions) == 6
    assert all(step.scheduled[0].num_tokens > 0 for step in decisions if step.scheduled)


def test_guesses_make_nobody_preempt() -> None:
    requests = [make_request(str(index), max_tokens=11) for index in range(4)]
    driver, _ = run(*requests, num_blocks=17, offset=1)  # 4 blocks a request, and one to spare
    assert driver.scheduler.stats().num_preemptions == 0


def test_rows_to_sample_stay_bounded() -> None:
    requests = [make_request(str(index)) for index in range(4)]
    _, decisions = run(*requests, max_num_seqs=4)
    rows = [
        num + len(step.scheduled)
        for num, step in zip(num_drafts(decisions), decisions, strict=True)
    ]
    assert max(rows) == 4 + 4  # num_speculative_tokens more than max_num_seqs


def test_blocks_of_guesses_are_not_found_by_others() -> None:
    """Wrong guesses fill a block; one who starts with them must not find it."""
    first = make_request("first", max_tokens=2)
    spec = fake_spec(vocab_size=VOCAB_SIZE, block_size=4)
    driver = SchedulerDriver(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        FakeExecutor(spec),
        new_drafter=lambda: Always(1),
    )
    driver.scheduler.add(make_request("first", max_tokens=9))
    guessed = driver.step().scheduled[0].draft_token_ids
    second = Request(
        request_id="second",
        prompt_token_ids=(*first.prompt_token_ids, *guessed, 7),
        sampling=first.sampling,
        arrival_time_s=0.0,
    )
    driver.scheduler.add(second)
    driver.run()
    assert driver.tokens("second") == expected_tokens(second, spec)[0]
    assert driver.final("second").num_cached_tokens == 4


class Bench:
    """AdaptiveSpeculation where a step of so many tokens takes so long, and so many are right."""

    def __init__(
        self, num_seqs: int, *, fixed_s: float, per_token_s: float, num_right: int
    ) -> None:
        self.clock = FakeClock()
        self._times = (fixed_s, per_token_s)
        self._num_right = num_right
        kv_cache = KVCacheManager(1024, 16, model_version="v", kv_dtype="f")
        self._speculation = AdaptiveSpeculation(
            kv_cache,
            Always,
            num_speculative_tokens=4,
            max_num_seqs=64,
            clock=self.clock,
        )
        self.states = [self._state(kv_cache, index) for index in range(num_seqs)]

    def _state(self, kv_cache: KVCacheManager, index: int) -> RequestState:
        request = make_request(str(index), max_tokens=1000)
        conditions = StopConditions.resolve(
            request.sampling, num_prompt_tokens=5, max_model_len=2000, eos_token_ids=frozenset()
        )
        table = kv_cache.open_table("")
        kv_cache.extend(table, (), 5)
        return RequestState(request, index, list(request.prompt_token_ids), table, conditions)

    def step(self) -> float:
        """Drafts for each request of the step, on average."""
        parts = [ScheduledTokens(s.request.request_id, 4, 1, ()) for s in self.states]
        self._speculation.extend(parts, self.states, 1000)
        fixed_s, per_token_s = self._times
        self.clock.advance(fixed_s + per_token_s * sum(part.num_tokens for part in parts))
        results = [
            StepResult(
                part.request_id, (0,) * (1 + min(self._num_right, len(part.draft_token_ids)))
            )
            for part in parts
        ]
        self._speculation.observe(parts, self.states, results)
        return sum(len(part.draft_token_ids) for part in parts) / len(parts)

    def average(self, num_steps: int = 500) -> float:
        for _ in range(100):
            self.step()
        return sum(self.step() for _ in range(num_steps)) / num_steps


def test_where_tokens_are_cheap_it_guesses_as_far_as_it_is_right() -> None:
    assert Bench(1, fixed_s=1.0, per_token_s=0.01, num_right=4).average() > 3.9
    assert 1.0 <= Bench(1, fixed_s=1.0, per_token_s=0.15, num_right=1).average() <= 3.0
    assert Bench(1, fixed_s=1.0, per_token_s=0.2, num_right=0).average() < 0.15


def test_where_tokens_are_dear_it_turns_itself_off() -> None:
    """Even guesses that are always right; seldom ones remain, to see whether that still holds."""
    assert Bench(32, fixed_s=0.1, per_token_s=1.0, num_right=1).average() < 0.05
    assert Bench(1, fixed_s=0.0, per_token_s=1.0, num_right=4).average() < 0.15


def test_a_large_batch_leaves_it_off_where_a_small_one_uses_it() -> None:
    shape = {"fixed_s": 1.0, "per_token_s": 0.1, "num_right": 1}
    assert Bench(1, **shape).average() > 0.9  # type: ignore[arg-type]
    assert Bench(48, **shape).average() < 0.1  # type: ignore[arg-type]


def test_each_method_is_what_it_says() -> None:
    kv_cache = KVCacheManager(4, 16, model_version="v", kv_dtype="f")
    kinds = {
        "off": NoSpeculation,
        "ngram": AdaptiveSpeculation,
        "draft": DraftModelSpeculation,
    }
    for method, kind in kinds.items():
        config = SpeculativeConfig(speculative_method=method)  # type: ignore[arg-type]
        built = build_speculation(config, kv_cache, max_num_seqs=4, draft_context_length=100)
        assert isinstance(built, kind)
        assert built.totals.method == method
