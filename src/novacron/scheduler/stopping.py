"""When a request has all the tokens it gets. Pure; stop strings are the detokenizer's business."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.records.request import FinishReason, SamplingParams


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a request ends. `token_id` is the stop token of its own that ended it, if one did."""

    reason: FinishReason
    token_id: int | None = None


_END_OF_SEQUENCE = Stop(FinishReason.STOP)
_LENGTH = Stop(FinishReason.LENGTH)


@dataclass(frozen=True, slots=True)
class StopConditions:
    """The conditions of one request, resolved once so that a check per token is cheap."""

    eos_token_ids: frozenset[int]
    stop_token_ids: frozenset[int]
    min_tokens: int
    max_output_tokens: int  # the smaller of max_tokens and what the context leaves

    @staticmethod
    def resolve(
        sampling: SamplingParams,
        *,
        num_prompt_tokens: int,
        max_model_len: int,
        eos_token_ids: frozenset[int],
    ) -> StopConditions:
        room = max(max_model_len - num_prompt_tokens, 0)
        return StopConditions(
            eos_token_ids=frozenset() if sampling.ignore_eos else eos_token_ids,
            stop_token_ids=frozenset(sampling.stop_token_ids),
            min_tokens=sampling.min_tokens,
            max_output_tokens=room
            if sampling.max_tokens is None
            else min(sampling.max_tokens, room),
        )

    def after(self, token_id: int, num_output_tokens: int) -> Stop | None:
        """Whether `token_id`, the output token number `num_output_tokens`, is the last one.

        A token that stops is named as the reason even where the length is used up as well. It
        counts as output itself, so at least `min_tokens` others come before it.
        """
        if num_output_tokens > self.min_tokens:
            if token_id in self.eos_token_ids:
                return _END_OF_SEQUENCE
            if token_id in self.stop_token_ids:
                return Stop(FinishReason.STOP, token_id)
        return _LENGTH if num_output_tokens >= self.max_output_tokens else None
