"""Speculation: which guesses join a step. Lossless, see docs/adr/0008-speculation.md.

The scheduler plans a step of known tokens first; what is left of budget and blocks may then go to
guesses. They preempt nobody and delay nobody's prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.step import DraftOutput, DraftPart, ScheduledTokens, StepResult
from novacron.scheduler.request_state import RequestState

MIN_PRICE: Final = 0.01  # tokens a draft; times so close that they say nothing prove it not free
_FADING: Final = 0.99  # of trust, a step
_MAX_FADING: Final = 1000  # steps


@dataclass(slots=True)
class SpeculationTotals:
    method: str = "off"
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0

    def count(self, num_drafts: int, num_accepted: int) -> None:
        """One verification more."""
        self.num_drafts += 1
        self.num_draft_tokens += num_drafts
        self.num_accepted_tokens += num_accepted


class Speculation(Protocol):
    """What the scheduler asks in every step. Parts, states and results belong together, one by
    one."""

    totals: SpeculationTotals

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> tuple[DraftPart, ...]:
        """Let parts that reach the end of what is known go on by guesses; replaces them in place.

        Adds at most `num_tokens_left` tokens. Guesses that a draft model has to make first are not
        in the parts yet: they are returned as its work, with blocks for them in the parts.
        """
        ...

    def see_drafts(
        self, drafting: Sequence[DraftPart], states: Sequence[RequestState], drafted: DraftOutput
    ) -> None:
        """Take note of what came of the work that `extend` returned. Here states are those of the
        requests in `drafting`."""
        ...

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        """Learn from the result of the step that `extend` saw last."""
        ...

    def forget_blocks(self, block_ids: Sequence[int]) -> None:
        """These blocks get another content, and not by a step."""
        ...

    def forget_steps(self, states: Sequence[RequestState]) -> None:
        """The steps that `observe` has not seen yet have no result: these were their requests."""
        ...


class NoSpeculation:
    """Every token is computed after the one before it is known."""

    def __init__(self) -> None:
        self.totals = SpeculationTotals()

    def extend(
        self, parts: list[ScheduledTokens], states: Sequence[RequestState], num_tokens_left: int
    ) -> tuple[DraftPart, ...]:
        return ()

    def see_drafts(
        self, drafting: Sequence[DraftPart], states: Sequence[RequestState], drafted: DraftOutput
    ) -> None:
        raise AssertionError("nothing was to be drafted")

    def observe(
        self,
        parts: Sequence[ScheduledTokens],
        states: Sequence[RequestState],
        results: Sequence[StepResult],
    ) -> None:
        pass

    def forget_blocks(self, block_ids: Sequence[int]) -> None:
        pass

    def forget_steps(self, states: Sequence[RequestState]) -> None:
        pass


class Trials:
    """When to try the other way: the longer all steps were with guesses, or all without, the less
    the comparison of the two is trusted."""

    def __init__(self) -> None:
        self._num_steps = 0
        self._last_guessing = self._last_plain = 0  # steps

    @property
    def trust(self) -> float:
        """A factor for prices: below 1 after steps without guesses, above 1 after those with."""
        num_since = self._last_plain - self._last_guessing
        return float(_FADING ** max(-_MAX_FADING, min(num_since, _MAX_FADING)))

    def see_step(self, *, is_guessing: bool) -> None:
        self._num_steps += 1
        if is_guessing:
            self._last_guessing = self._num_steps
        else:
            self._last_plain = self._num_steps


def num_useful(state: RequestState, part: ScheduledTokens) -> int:
    """How many guesses the part could use: none beyond the request's last token."""
    if part.num_known_tokens < len(state.token_ids) or not state.can_be_guessed:
        return 0
    return state.stop_conditions.max_output_tokens - state.num_output_tokens - 1


def cover(
    kv_cache: KVCacheManager,
    part: ScheduledTokens,
    state: RequestState,
    num_drafts: int,
    num_seqs: int,
) -> tuple[int, ...] | None:
    """The blocks that drafts take; None if too few would be left: each request must find one in
    the next step, so that no guess ever makes somebody preempt."""
    end = part.num_known_tokens + num_drafts
    num_needed = kv_cache.blocks_for(end) - len(state.blocks.block_ids)
    if num_needed > 0 and kv_cache.num_available_blocks - num_needed < num_seqs:
        return None
    return kv_cache.extend(state.blocks, state.token_ids, end)


def with_drafts(part: ScheduledTokens, drafts: tuple[int, ...]) -> ScheduledTokens:
    """The part, which has none yet, going on by these guesses."""
    if not drafts:
        return part
    return msgspec.structs.replace(
        part, num_tokens=part.num_tokens + len(drafts), draft_token_ids=drafts
    )


def with_blocks(part: ScheduledTokens, new_block_ids: tuple[int, ...]) -> ScheduledTokens:
    """The part with more blocks for its request."""
    if not new_block_ids:
        return part
    return msgspec.structs.replace(part, new_block_ids=part.new_block_ids + new_block_ids)
