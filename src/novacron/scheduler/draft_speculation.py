"""DraftModelSpeculation: guesses that a smaller model makes, for all requests of a step together.

See docs/adr/0012-draft-model.md. What the draft model shall compute is decided here, down to the
positions; whoever runs it decides nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.step import DraftOutput, DraftPart, ScheduledTokens, StepResult
from novacron.scheduler.acceptance import Acceptance
from novacron.scheduler.draft_coverage import DraftCoverage
from novacron.scheduler.draft_lengths import Candidate, Choice, Costs, choose_lengths
from novacron.scheduler.guesser import DraftProgress
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.speculation import (
    SpeculationTotals,
    Trials,
    cover,
    num_useful,
    with_blocks,
)
from novacron.scheduler.step_times import StepTimes

_SHORTEST_OUTLOOK: Final = 8  # tokens that an answer is taken to have still to come


class DraftModelSpeculation:
    """As many guesses a step as bring the most tokens a second; none where none do.

    How often guesses are right is learnt for each request, from the others where it is new; how
    long steps and the draft model's passes take, for each size. Both ways are tried again now and
    then, as with AdaptiveSpeculation, and rows that are sampled have the same limit.

    A request is guessed for from its second token on, so that nothing delays the first. What the
    draft model has missed of it until then must look worth computing, over an answer that goes on
    for as long as it is; a step has as many tokens for that as its budget has left.
    """

    def __init__(
        self,
        kv_cache: KVCacheManager,
        *,
        num_speculative_tokens: int,
        max_num_seqs: int,
        context_length: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.totals = SpeculationTotals("draft")
        self._kv_cache = kv_cache
        self._max_drafts = num_speculative_tokens
        self._max_rows = max_num_seqs + num_speculative_tokens
        self._context_length = context_length
        self._clock = clock
        self._coverage = DraftCoverage(kv_cache.num_blocks, kv_cache.block_size)
        self._acceptance = Acceptance()  # of all requests
        self._step_times, self._pass_times = StepTimes(), StepTimes()
        self._started_s: deque[float] = deque()  # steps in flight
        self._trials = Trials()

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> tuple[DraftPart, ...]:
        for part, state in zip(parts, states, strict=True):
            self._coverage.see_blocks(state, part)
        places = [place for place, state in enumerate(states) if self._wants(state, parts[place])]
        candidates = [self._candidate(states[place], parts[place]) for place in places]
        num_left = min(num_tokens_left, self._max_rows - len(parts))
        choice = self._choose(candidates, parts, num_left)
        num_catching_up = num_tokens_left  # a budget for a pass of its own
        drafting = []
        for place, length in zip(places, choice.lengths, strict=True):
            if length == 0:
                self._rest(states[place])
                continue
            work = self._plan(parts, states[place], place, length, num_catching_up)
            if work is not None:
                drafting.append(work)
                num_catching_up -= work.num_tokens - (work.num_drafts > 0)
        self._started_s.append(self._clock())
        return tuple(drafting)

    def see_drafts(
        self, drafting: Sequence[DraftPart], states: Sequence[RequestState], drafted: DraftOutput
    ) -> None:
        for one in drafted.passes:
            self._pass_times.observe(one.num_tokens, one.seconds)
        for work, state, drafts in zip(drafting, states, drafted.drafts, strict=True):
            progress = _progress(state)
            progress.num_drafted = len(drafts)
            if len(drafts) < work.num_drafts:
                self._coverage.forget(state, progress)
                self._learn(progress, work.num_drafts, 0)
        self._started_s[-1] = self._clock()

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        if not parts:
            return
        elapsed_s = self._clock() - self._started_s.popleft()
        self._step_times.observe(sum(part.num_tokens for part in parts), elapsed_s)
        is_guessing = any(part.draft_token_ids for part in parts)
        self._trials.see_step(is_guessing=is_guessing)
        if not is_guessing:
            self._acceptance = self._acceptance.rested()
        for part, state, result in zip(parts, states, results, strict=True):
            progress = state.draft_progress
            if progress is None or progress.num_drafted == 0:
                continue
            num_drafted, progress.num_drafted = progress.num_drafted, 0
            if result.error is None:
                self._verify(part, state, progress, num_drafted, len(result.token_ids) - 1)

    def forget_blocks(self, block_ids: Sequence[int]) -> None:
        self._coverage.drop(block_ids)

    def forget_steps(self, states: Sequence[RequestState]) -> None:
        self._started_s.clear()
        for state in states:
            if state.draft_progress is not None:
                state.draft_progress.num_drafted = 0

    def _verify(
        self,
        part: ScheduledTokens,
        state: RequestState,
        progress: DraftProgress,
        num_drafted: int,
        num_accepted: int,
    ) -> None:
        """Learn how many guesses were right; those that a grammar has dropped since were not. The
        draft model has seen the right ones, but for its last guess, which it only made."""
        if part.draft_token_ids:
            self.totals.count(len(part.draft_token_ids), num_accepted)
        self._learn(progress, num_drafted, num_accepted)
        if progress.num_seen > 0:
            num_seen = part.num_known_tokens + min(num_accepted, num_drafted - 1)
            self._coverage.cover(state, progress, num_seen)

    def _learn(self, progress: DraftProgress, num_drafts: int, num_accepted: int) -> None:
        progress.acceptance = progress.acceptance.after(num_drafts, num_accepted)
        self._acceptance = self._acceptance.after(num_drafts, num_accepted)

    def _wants(self, state: RequestState, part: ScheduledTokens) -> bool:
        """Whether the request has its first token, and a guess could be of use."""
        is_answering = state.num_output_tokens > 0 and part.num_tokens == 1
        return is_answering and self._num_useful(state, part) > 0

    def _num_useful(self, state: RequestState, part: ScheduledTokens) -> int:
        room = self._context_length - len(state.token_ids)
        return min(self._max_drafts, num_useful(state, part), room)

    def _candidate(self, state: RequestState, part: ScheduledTokens) -> Candidate:
        progress = _progress(state)
        return Candidate(
            rate=progress.acceptance.rate_where(self._acceptance.rate),
            max_drafts=self._num_useful(state, part),
            num_behind=len(state.token_ids) - self._coverage.num_seen(state, progress),
            num_steps=max(_SHORTEST_OUTLOOK, state.num_output_tokens),
        )

    def _choose(
        self, candidates: Sequence[Candidate], parts: Sequence[ScheduledTokens], num_left: int
    ) -> Choice:
        """What pays, unless it is time to see how a step goes without; if nothing does, what would
        if prices were as low as they have not been seen to be for long."""
        costs = Costs(
            num_tokens=sum(part.num_tokens for part in parts),
            num_requests=len(parts),
            step_s=self._step_times.estimate_s,
            pass_s=self._pass_times.estimate_s,
        )
        trust = self._trials.trust
        choice = choose_lengths(candidates, costs, num_left=num_left)
        if choice.gain == 0.0 and trust < 1.0:
            return choose_lengths(candidates, costs, num_left=num_left, trust=trust)
        if choice.gain < choice.price * trust:
            return Choice((0,) * len(candidates))
        return choice

    def _plan(
        self,
        parts: list[ScheduledTokens],
        state: RequestState,
        place: int,
        num_drafts: int,
        num_catching_up: int,
    ) -> DraftPart | None:
        """The draft model's work for one request, with `num_catching_up` tokens at most beside the
        last known one; None if there is no room for any."""
        part, progress = parts[place], _progress(state)
        start = self._coverage.num_seen(state, progress)  # some may be new from a neighbour
        end = len(state.token_ids)
        if end - start - 1 > num_catching_up:
            end, num_drafts = start + num_catching_up, 0
        else:
            new_block_ids = cover(self._kv_cache, part, state, num_drafts, len(parts))
            if new_block_ids is None:
                return None
            parts[place] = with_blocks(part, new_block_ids)
            self._coverage.drop(new_block_ids)
        if end == start:
            return None
        self._coverage.cover(state, progress, end)
        return DraftPart(part.request_id, start, end - start, num_drafts)

    def _rest(self, state: RequestState) -> None:
        progress = _progress(state)
        progress.acceptance = progress.acceptance.rested()


def _progress(state: RequestState) -> DraftProgress:
    if state.draft_progress is None:
        state.draft_progress = DraftProgress()
    return state.draft_progress
