from __future__ import annotations

import pytest

from novacron.records.request import FinishReason, SamplingParams
from novacron.scheduler.stopping import Stop, StopConditions

EOS, STOP_TOKEN, OTHER = 2, 5, 9


def conditions(num_prompt_tokens: int = 10, **sampling: object) -> StopConditions:
    return StopConditions.resolve(
        SamplingParams(**sampling),
        num_prompt_tokens=num_prompt_tokens,
        max_model_len=16,
        eos_token_ids=frozenset({EOS, 3}),
    )


@pytest.mark.parametrize("token_id", [EOS, 3])
def test_any_end_of_sequence_token_stops_and_is_not_named(token_id: int) -> None:
    assert conditions().after(token_id, 1) == Stop(FinishReason.STOP, None)


def test_a_stop_token_is_named() -> None:
    assert conditions(stop_token_ids=(STOP_TOKEN,)).after(STOP_TOKEN, 1) == Stop(
        FinishReason.STOP, STOP_TOKEN
    )


def test_other_tokens_do_not_stop() -> None:
    assert conditions(stop_token_ids=(STOP_TOKEN,)).after(OTHER, 1) is None


def test_ignore_eos_leaves_the_requests_own_stop_tokens() -> None:
    ignoring = conditions(ignore_eos=True, stop_token_ids=(3,))
    assert ignoring.after(EOS, 1) is None
    assert ignoring.after(3, 1) == Stop(FinishReason.STOP, 3)


def test_an_end_of_sequence_token_that_is_a_stop_token_too_is_not_named() -> None:
    assert conditions(stop_token_ids=(EOS,)).after(EOS, 1) == Stop(FinishReason.STOP, None)


@pytest.mark.parametrize(("num_output_tokens", "stops"), [(1, False), (2, False), (3, True)])
def test_min_tokens_come_before_the_token_that_stops(num_output_tokens: int, stops: bool) -> None:
    stop = conditions(min_tokens=2, stop_token_ids=(STOP_TOKEN,))
    assert (stop.after(EOS, num_output_tokens) is not None) is stops
    assert (stop.after(STOP_TOKEN, num_output_tokens) is not None) is stops


@pytest.mark.parametrize(
    ("max_tokens", "num_prompt_tokens", "longest"),
    [(4, 10, 4), (None, 10, 6), (100, 10, 6), (1, 15, 1), (4, 16, 0), (0, 10, 0)],
)
def test_length_is_max_tokens_or_what_the_context_leaves(
    max_tokens: int | None, num_prompt_tokens: int, longest: int
) -> None:
    stop = conditions(num_prompt_tokens, max_tokens=max_tokens)
    assert stop.max_output_tokens == longest
    assert stop.after(OTHER, longest) == Stop(FinishReason.LENGTH)
    assert longest < 2 or stop.after(OTHER, longest - 1) is None


def test_min_tokens_do_not_lengthen_the_context() -> None:
    assert conditions(min_tokens=50).after(OTHER, 6) == Stop(FinishReason.LENGTH)


def test_a_stop_at_the_last_possible_token_is_a_stop() -> None:
    assert conditions(max_tokens=3).after(EOS, 3) == Stop(FinishReason.STOP)
