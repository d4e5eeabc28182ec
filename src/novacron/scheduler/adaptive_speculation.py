"""AdaptiveSpeculation: guesses that cost no computing to make, such as those of prompt lookup."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.step import DraftOutput, DraftPart, ScheduledTokens, StepResult
from novacron.scheduler.acceptance import best_length
from novacron.scheduler.guesser import Drafter, Guesser
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.speculation import (
    MIN_PRICE,
    SpeculationTotals,
    Trials,
    cover,
    num_useful,
    with_blocks,
    with_drafts,
)
from novacron.scheduler.step_times import StepTimes


@dataclass(slots=True)
class _Step:
    """The step as it grows by guesses: how many more it takes, and what they cost."""

    times: StepTimes
    trust: float  # in the prices: a factor
    num_left: int
    num_tokens: int
    num_expected: float  # tokens that it should bring
    without_s: float = field(init=False)
    first_price: float = field(init=False)

    def __post_init__(self) -> None:
        self.without_s = self.times.estimate_s(self.num_tokens)
        self.first_price = self.price(1)

    def price(self, num_drafts: int) -> float:
        """In tokens that all requests of the step should get in the time that the drafts add."""
        price = 0.0
        if self.without_s > 0.0:
            with_s = self.times.estimate_s(self.num_tokens + num_drafts)
            price = (with_s / self.without_s - 1.0) * self.num_expected
        return max(price, MIN_PRICE * num_drafts) * self.trust

    def grown(self, num_drafts: int, rate: float) -> _Step:
        gain = sum(rate**place for place in range(1, num_drafts + 1))
        return _Step(
            self.times,
            max(self.trust, 1.0),  # one request is enough for a trial
            self.num_left - num_drafts,
            self.num_tokens + num_drafts,
            self.num_expected + gain,
        )


class AdaptiveSpeculation:
    """Guesses as far ahead as it pays for each request, and not at all where it does not.

    A draft is worth the chance that it is right, and costs the time that it adds to the step, in
    which all its requests could have got on. Both are measured. In a small step most of the time
    goes into reading the weights, so a token more is cheap; in a large one it costs as much as any.
    The longer all steps were with guesses, or all without, the less the comparison is trusted, in
    favour of the other: so both are tried again, at the price of one step in about a hundred.

    Rows that are sampled never exceed `max_num_seqs` by more than one request's drafts.
    """

    def __init__(
        self,
        kv_cache: KVCacheManager,
        new_drafter: Callable[[], Drafter],
        *,
        num_speculative_tokens: int,
        max_num_seqs: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.totals = SpeculationTotals("ngram")
        self._kv_cache = kv_cache
        self._new_drafter = new_drafter
        self._max_drafts = num_speculative_tokens
        self._max_rows = max_num_seqs + num_speculative_tokens
        self._clock = clock
        self._times = StepTimes()
        self._started_s: deque[float] = deque()  # steps in flight
        self._trials = Trials()

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> tuple[DraftPart, ...]:
        step = _Step(
            self._times,
            trust=self._trials.trust,
            num_left=min(num_tokens_left, self._max_rows - len(parts)),
            num_tokens=sum(part.num_tokens for part in parts),
            num_expected=float(len(parts)),
        )
        for place, state in enumerate(states):
            max_drafts = min(self._max_drafts, num_useful(state, parts[place]), step.num_left)
            if max_drafts <= 0:
                continue
            guesser = state.guesser = state.guesser or Guesser(self._new_drafter())
            rate = guesser.acceptance.rate
            drafts = _choose(guesser, state, max_drafts, step)
            if not drafts:
                continue
            new_block_ids = cover(self._kv_cache, parts[place], state, len(drafts), len(parts))
            if new_block_ids is not None:
                parts[place] = with_drafts(with_blocks(parts[place], new_block_ids), drafts)
                step = step.grown(len(drafts), rate)
        self._started_s.append(self._clock())
        return ()

    def see_drafts(
        self, drafting: Sequence[DraftPart], states: Sequence[RequestState], drafted: DraftOutput
    ) -> None:
        raise AssertionError("the guesses were in the parts already")

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        if not parts:
            return
        elapsed_s = self._clock() - self._started_s.popleft()
        self._times.observe(sum(part.num_tokens for part in parts), elapsed_s)
        self._trials.see_step(is_guessing=any(part.draft_token_ids for part in parts))
        for part, state, result in zip(parts, states, results, strict=True):
            if not part.draft_token_ids or result.error is not None:
                continue
            num_drafts, num_accepted = len(part.draft_token_ids), len(result.token_ids) - 1
            self.totals.count(num_drafts, num_accepted)
            assert state.guesser is not None
            state.guesser.acceptance = state.guesser.acceptance.after(num_drafts, num_accepted)

    def forget_blocks(self, block_ids: Sequence[int]) -> None:
        pass

    def forget_steps(self, states: Sequence[RequestState]) -> None:
        self._started_s.clear()


def _choose(guesser: Guesser, state: RequestState, max_drafts: int, step: _Step) -> tuple[int, ...]:
    """The guesses that pay. Where not even one would, none are looked for."""
    acceptance = guesser.acceptance
    if acceptance.rate > step.first_price:
        drafts = guesser.drafter.draft(state.token_ids, max_drafts)
        length = best_length(acceptance.rate, len(drafts), step.price)
        if length > 0:
            return drafts[:length]
    guesser.acceptance = acceptance.rested()
    return ()
