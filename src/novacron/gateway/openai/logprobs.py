"""Log-probabilities in OpenAI's two forms (chats, completions) and vLLM's (prompts)."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import accumulate

from novacron.gateway.openai.responses import (
    ChatLogprobs,
    CompletionLogprobs,
    PromptLogprob,
    PromptLogprobs,
    TokenLogprob,
    TopLogprob,
)
from novacron.records import output as records

_LOWEST = -9999.0  # JSON has no infinity; OpenAI writes this for a token that cannot come


def chat_logprobs(positions: Sequence[records.TextLogprobs]) -> ChatLogprobs | None:
    if not positions:
        return None
    return ChatLogprobs(tuple(map(_chat_position, positions)))


def _chat_position(position: records.TextLogprobs) -> TokenLogprob:
    chosen = position.chosen
    return TokenLogprob(
        token=chosen.text,
        logprob=_finite(chosen.logprob),
        bytes=tuple(chosen.data),
        top_logprobs=tuple(
            TopLogprob(token=top.text, logprob=_finite(top.logprob), bytes=tuple(top.data))
            for top in position.top
        ),
    )


def completion_logprobs(
    positions: Sequence[records.TextLogprobs], start_offset: int, hidden: Container[int] = ()
) -> CompletionLogprobs | None:
    """`start_offset` is where the first token's text begins, in characters.

    `hidden` are tokens that have no text in the completion: special ones, if they are skipped.
    """
    if not positions:
        return None
    lengths = [text_length((position,), hidden) for position in positions]
    return CompletionLogprobs(
        text_offset=tuple(accumulate(lengths[:-1], initial=start_offset)),
        token_logprobs=tuple(_finite(position.chosen.logprob) for position in positions),
        tokens=tuple(position.chosen.text for position in positions),
        top_logprobs=tuple(map(_top_of, positions)),
    )


def echoed_logprobs(
    first_token_id: int,
    first_text: str,
    positions: Sequence[records.TextLogprobs],
    hidden: Container[int] = (),
) -> CompletionLogprobs:
    """Of a prompt: like `completion_logprobs`, with a first token that has none."""
    first = CompletionLogprobs((0,), (None,), (first_text,), (None,))
    first_length = 0 if first_token_id in hidden else len(first_text)
    return joined(first, completion_logprobs(positions, first_length, hidden)) or first


def text_length(positions: Sequence[records.TextLogprobs], hidden: Container[int]) -> int:
    chosen = (position.chosen for position in positions)
    return sum(len(token.text) for token in chosen if token.token_id not in hidden)


def joined(
    first: CompletionLogprobs | None, second: CompletionLogprobs | None
) -> CompletionLogprobs | None:
    if first is None or second is None:
        return first or second
    return CompletionLogprobs(
        text_offset=first.text_offset + second.text_offset,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        tokens=first.tokens + second.tokens,
        top_logprobs=first.top_logprobs + second.top_logprobs,
    )


def prompt_logprobs(positions: Sequence[records.TextLogprobs]) -> PromptLogprobs:
    """`positions` are those of the second prompt token and on."""
    return (None, *(_by_token_id(position) for position in positions))


def _by_token_id(position: records.TextLogprobs) -> dict[str, PromptLogprob]:
    return {
        str(token.token_id): PromptLogprob(_finite(token.logprob), token.text)
        for token in (position.chosen, *position.top)
    }


def _top_of(position: records.TextLogprobs) -> dict[str, float]:
    """The likeliest tokens; the chosen one is always among them, as at OpenAI."""
    return {token.text: _finite(token.logprob) for token in (*position.top, position.chosen)}


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)
