from __future__ import annotations

import math

from novacron.gateway.openai.logprobs import (
    chat_logprobs,
    completion_logprobs,
    echoed_logprobs,
    joined,
    prompt_logprobs,
)
from novacron.records.output import TextLogprobs, TokenLogprob

EOS = 2


def token(token_id: int, text: str, logprob: float = -0.5) -> TokenLogprob:
    return TokenLogprob(token_id, text, logprob, text.encode())


def position(*tokens: TokenLogprob) -> TextLogprobs:
    return TextLogprobs(tokens[0], tokens[1:])


WORDS = [
    position(token(5, "ab"), token(5, "ab"), token(6, "x", -1.0)),
    position(token(7, "cde", -3.0), token(8, "y", -0.1)),
    position(token(EOS, "</s>")),
]


def test_offsets_count_characters_and_not_hidden_tokens() -> None:
    told = completion_logprobs([*WORDS, WORDS[0]], 10, hidden={EOS})
    assert told is not None
    assert told.text_offset == (10, 12, 15, 15)
    assert told.tokens == ("ab", "cde", "</s>", "ab")


def test_the_chosen_token_is_always_among_the_top() -> None:
    told = completion_logprobs(WORDS, 0)
    assert told is not None
    assert told.top_logprobs[:2] == ({"ab": -0.5, "x": -1.0}, {"y": -0.1, "cde": -3.0})


def test_an_echoed_prompt_begins_with_a_token_that_has_none() -> None:
    told = echoed_logprobs(1, "<s>", WORDS[:2], hidden={1})
    assert told.tokens == ("<s>", "ab", "cde")
    assert told.token_logprobs == (None, -0.5, -3.0)
    assert told.text_offset == (0, 0, 2)
    alone = echoed_logprobs(5, "ab", [])
    assert (alone.text_offset, alone.token_logprobs) == ((0,), (None,))


def test_joining_with_nothing_changes_nothing() -> None:
    told = completion_logprobs(WORDS, 0)
    assert joined(told, None) is joined(None, told) is told
    assert joined(None, None) is None


def test_impossible_tokens_are_told_in_json_s_numbers() -> None:
    told = chat_logprobs([position(token(5, "a", -math.inf))])
    assert told is not None
    assert told.content[0].logprob == -9999.0


def test_no_positions_are_null() -> None:
    assert chat_logprobs([]) is None
    assert completion_logprobs([], 3) is None


def test_prompt_positions_by_token_id() -> None:
    first, second = prompt_logprobs(WORDS[:1])
    assert first is None
    assert second is not None
    assert {name: entry.logprob for name, entry in second.items()} == {"5": -0.5, "6": -1.0}
