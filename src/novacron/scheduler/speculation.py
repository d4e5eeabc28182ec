"""Speculation: which guesses join a step. Lossless, see docs/adr/0008-speculation.md.

The scheduler plans a step of known tokens first; what is left of budget and blocks may then go to
guesses. They preempt nobody and delay nobody's prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from novacron.config.engine import SpeculativeConfig
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.step import ScheduledTokens, StepResult
from novacron.scheduler.acceptance import best_length
from novacron.scheduler.guesser import Drafter, Guesser
from novacron.scheduler.prompt_lookup import PromptLookup
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.step_times import StepTimes

_MIN_PRICE: Final = 0.01  # tokens a draft; times so close that they say nothing prove it not free
_FADING: Final = 0.99  # of trust, a step
_MAX_FADING: Final = 1000  # steps


@dataclass(slots=True)
class SpeculationTotals:
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0


class Speculation(Protocol):
    """What the scheduler asks in every step. Parts, states and results belong together, one by
    one."""

    totals: SpeculationTotals

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> None:
        """Let parts that reach the end of what is known go on by guesses; replaces them in place.

        Adds at most `num_tokens_left` tokens.
        """
        ...

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        """Learn from the result of the step that `extend` saw last."""
        ...


class NoSpeculation:
    """Every token is computed after the one before it is known."""

    def __init__(self) -> None:
        self.totals = SpeculationTotals()

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> None:
        pass

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        pass


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
        return max(price, _MIN_PRICE * num_drafts) * self.trust

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
        self.totals = SpeculationTotals()
        self._kv_cache = kv_cache
        self._new_drafter = new_drafter
        self._max_drafts = num_speculative_tokens
        self._max_rows = max_num_seqs + num_speculative_tokens
        self._clock = clock
        self._times = StepTimes()
        self._started_s = 0.0
        self._num_steps = 0
        self._last_guessing = self._last_plain = 0  # steps

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> None:
        step = _Step(
            self._times,
            trust=self._trust,
            num_left=min(num_tokens_left, self._max_rows - len(parts)),
            num_tokens=sum(part.num_tokens for part in parts),
            num_expected=float(len(parts)),
        )
        for place, state in enumerate(states):
            max_drafts = min(self._max_useful(state, parts[place]), step.num_left)
            if max_drafts <= 0:
                continue
            guesser = state.guesser = state.guesser or Guesser(self._new_drafter())
            rate = guesser.acceptance.rate
            drafts = _choose(guesser, state, max_drafts, step)
            if not drafts:
                continue
            new_block_ids = self._cover(parts[place], state, len(drafts), len(parts))
            if new_block_ids is not None:
                parts[place] = _with_drafts(parts[place], drafts, new_block_ids)
                step = step.grown(len(drafts), rate)
        self._started_s = self._clock()

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        if not parts:
            return
        elapsed_s = self._clock() - self._started_s
        self._times.observe(sum(part.num_tokens for part in parts), elapsed_s)
        self._num_steps += 1
        if any(part.draft_token_ids for part in parts):
            self._last_guessing = self._num_steps
        else:
            self._last_plain = self._num_steps
        for part, state, result in zip(parts, states, results, strict=True):
            if not part.draft_token_ids or result.error is not None:
                continue
            num_drafts, num_accepted = len(part.draft_token_ids), len(result.token_ids) - 1
            self.totals.num_drafts += 1
            self.totals.num_draft_tokens += num_drafts
            self.totals.num_accepted_tokens += num_accepted
            assert state.guesser is not None
            state.guesser.acceptance = state.guesser.acceptance.after(num_drafts, num_accepted)

    @property
    def _trust(self) -> float:
        """Below 1 after steps without guesses, so that prices fall; above 1 after those with."""
        num_since = self._last_plain - self._last_guessing
        return float(_FADING ** max(-_MAX_FADING, min(num_since, _MAX_FADING)))

    def _max_useful(self, state: RequestState, part: ScheduledTokens) -> int:
        """How many guesses the part could use: none beyond the request's last token."""
        if part.num_known_tokens < len(state.token_ids) or not state.can_be_guessed:
            return 0
        num_wanted = state.stop_conditions.max_output_tokens - state.num_output_tokens
        return min(self._max_drafts, num_wanted - 1)

    def _cover(
        self, part: ScheduledTokens, state: RequestState, num_drafts: int, num_seqs: int
    ) -> tuple[int, ...] | None:
        """The blocks that drafts take; None if too few would be left: each request must find one in
        the next step, so that no guess ever makes somebody preempt."""
        end = part.num_known_tokens + num_drafts
        num_needed = self._kv_cache.blocks_for(end) - len(state.blocks.block_ids)
        if num_needed > 0 and self._kv_cache.num_available_blocks - num_needed < num_seqs:
            return None
        return self._kv_cache.extend(state.blocks, state.token_ids, end)


def build_speculation(
    config: SpeculativeConfig, kv_cache: KVCacheManager, *, max_num_seqs: int
) -> Speculation:
    """What the configuration asks for."""
    if config.speculative_method == "off":
        return NoSpeculation()

    def new_drafter() -> Drafter:
        return PromptLookup(
            lookup_min=config.prompt_lookup_min, lookup_max=config.prompt_lookup_max
        )

    return AdaptiveSpeculation(
        kv_cache,
        new_drafter,
        num_speculative_tokens=config.num_speculative_tokens,
        max_num_seqs=max_num_seqs,
    )


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


def _with_drafts(
    part: ScheduledTokens, drafts: tuple[int, ...], new_block_ids: tuple[int, ...]
) -> ScheduledTokens:
    return msgspec.structs.replace(
        part,
        num_tokens=part.num_tokens + len(drafts),
        new_block_ids=part.new_block_ids + new_block_ids,
        draft_token_ids=drafts,
    )
