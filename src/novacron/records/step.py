"""What crosses between the scheduler and the ranks in one step. Frozen values; no torch.

Only differences travel: a rank keeps the tokens and blocks of each request from the step that
introduced it until the step that names it in `finished_ids` or `preempted_ids`. Ranks drop before
they add: an id may be dropped and be new in the same step.
"""

from __future__ import annotations

import msgspec

from novacron.records.request import Pooling, SamplingParams


class NewRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request that ranks do not hold yet: new, or resumed after a preemption.

    `token_ids` is prompt plus output so far; the first `num_prompt_tokens` are the prompt.
    `sampling.seed` is always set.
    """

    request_id: str
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    sampling: SamplingParams
    pooling: Pooling | None = None


class ScheduledTokens(msgspec.Struct, frozen=True, array_like=True):
    """The part of one request that this step computes: positions [start, start + num_tokens).

    `new_block_ids` extend the request's block table (all its blocks, for a NewRequest). A token is
    sampled if and only if the part reaches the last known token of the request. Only then may it
    go on by `draft_token_ids`, guesses at what comes next: they stand at the part's last positions.
    """

    request_id: str
    start: int
    num_tokens: int
    new_block_ids: tuple[int, ...]
    draft_token_ids: tuple[int, ...] = ()

    @property
    def num_known_tokens(self) -> int:
        """Tokens of the request up to the end of the part, guesses left out."""
        return self.start + self.num_tokens - len(self.draft_token_ids)


class DraftPart(msgspec.Struct, frozen=True, array_like=True):
    """What the draft model computes of one request before a step: the known tokens at positions
    [start, start + num_tokens), which it has not seen, and then as many guesses as are wanted.

    Guesses are wanted only where the part reaches the last known token. The blocks that the step
    gives the request have room for them.
    """

    request_id: str
    start: int
    num_tokens: int
    num_drafts: int


class SchedulerOutput(msgspec.Struct, frozen=True, array_like=True):
    """The decision for one step. `token_masks` are the allowed tokens of constrained requests:
    little-endian bit sets, one bit per token id, padded to whole 32-bit words. The first is for the
    token after the last known one, and one follows for the token after each draft.

    With `drafting`, a draft model works first, and its guesses join the parts in `scheduled` before
    the step is computed.
    """

    step: int
    new_requests: tuple[NewRequest, ...]
    scheduled: tuple[ScheduledTokens, ...]
    preempted_ids: tuple[str, ...]
    finished_ids: tuple[str, ...]
    token_masks: dict[str, tuple[bytes, ...]] = {}
    drafting: tuple[DraftPart, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(part.num_tokens for part in self.scheduled)


class PositionLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities at one position: the token that stands there first, then the best ones.

    `rank` is the chosen token's place among all tokens, 1 being the likeliest.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    rank: int


class StepResult(msgspec.Struct, frozen=True, array_like=True):
    """What one scheduled request got from the step.

    `token_ids` is empty while a prompt is still being computed; else it holds the drafts that are
    what would have been chosen, up to the first that is not, and the token chosen after them, so
    that speculation changes how many tokens a step brings, but no token. `prompt_logprobs` holds
    the prompt positions computed in this step (position 0 never has one). `error` set: the request
    cannot go on (its logits were not finite, say); its neighbours can.
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    embedding: tuple[float, ...] | None = None
    error: str | None = None


class ModelRunnerOutput(msgspec.Struct, frozen=True, array_like=True):
    """One result per scheduled request, in the order of `SchedulerOutput.scheduled`."""

    step: int
    results: tuple[StepResult, ...]


class DraftPass(msgspec.Struct, frozen=True, array_like=True):
    """One forward pass of the draft model, choice of tokens included."""

    num_tokens: int
    seconds: float


class DraftOutput(msgspec.Struct, frozen=True, array_like=True):
    """The guesses of a draft model, for each of `SchedulerOutput.drafting` in order.

    Fewer than were wanted mean that its numbers were not usable for this request.
    """

    step: int
    drafts: tuple[tuple[int, ...], ...]
    passes: tuple[DraftPass, ...] = ()
