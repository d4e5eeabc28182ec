"""Token counts of one call, as OpenAI reports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from novacron.gateway.calls import Call
from novacron.gateway.openai.responses import PromptTokensDetails, Usage


class Counted(Protocol):
    """What a Request has cost so far: its newest RequestOutput, or a Choice."""

    @property
    def num_prompt_tokens(self) -> int: ...

    @property
    def num_output_tokens(self) -> int: ...

    @property
    def num_cached_tokens(self) -> int: ...


def usage_of(call: Call, counted: Sequence[Counted | None]) -> Usage:
    """`counted` has one entry per Request of the call, None for one that has brought nothing.

    The copies of a prompt (n > 1) count its tokens once. A prompt has the tokens that whoever has
    computed it says, who may be another than was asked (a specialist's fallback).
    """
    completion_tokens = sum(one.num_output_tokens for one in counted if one is not None)
    cached_tokens = sum(one.num_cached_tokens for one in counted[:: call.n] if one is not None)
    computed = [0 if one is None else one.num_prompt_tokens for one in counted[:: call.n]]
    prompt_tokens = sum(computed) if all(computed) else call.num_prompt_tokens
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens),
    )
