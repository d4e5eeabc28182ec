from __future__ import annotations

import pytest

from novacron.kv_cache.kv_cache_manager import BlockTable
from novacron.records.block import BlockHash
from novacron.records.request import Pooling, Request, SamplingParams
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.stopping import StopConditions


def state(
    *, prompt_logprobs: int | None = None, pooling: Pooling | None = None, sent: int = 0
) -> RequestState:
    request = Request(
        request_id="a",
        prompt_token_ids=(1, 2, 3, 4),
        sampling=SamplingParams(prompt_logprobs=prompt_logprobs),
        arrival_time_s=0.0,
        pooling=pooling,
    )
    conditions = StopConditions(frozenset(), frozenset(), min_tokens=0, max_output_tokens=9)
    table = BlockTable(BlockHash(b""))
    return RequestState(request, 0, [1, 2, 3, 4, 5, 6], table, conditions, num_prompt_logprobs=sent)


def test_what_comes_after_the_prompt_is_output() -> None:
    assert (state().num_prompt_tokens, state().num_output_tokens) == (4, 2)


@pytest.mark.parametrize(
    ("some_state", "needed"),
    [
        (state(), False),
        (state(pooling="last"), False),
        (state(pooling="mean"), True),
        (state(prompt_logprobs=0), True),
        (state(prompt_logprobs=0, sent=2), True),
        (state(prompt_logprobs=0, sent=3), False),  # all there are: the first token has none
    ],
)
def test_whole_prompt_is_needed_for_means_and_for_logprobs_not_sent_yet(
    some_state: RequestState, needed: bool
) -> None:
    assert some_state.needs_whole_prompt is needed
