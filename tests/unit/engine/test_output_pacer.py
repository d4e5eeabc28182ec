"""Nothing is lost, reordered or held longer than promised; first and last tokens never wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.output_pacer import OutputPacer, joined
from novacron.records.output import EngineOutput
from novacron.records.request import FinishReason
from novacron.records.step import PositionLogprobs

LONGEST_S = 0.025
FIRST = EngineOutput("a", new_token_ids=(1,), first_scheduled_time_s=5.0, num_cached_tokens=16)
LAST = EngineOutput(
    "a", new_token_ids=(9,), finish_reason=FinishReason.LENGTH, first_scheduled_time_s=5.0
)


def token(number: int, request_id: str = "a") -> EngineOutput:
    return EngineOutput(request_id, new_token_ids=(number,))


def tokens_of(outputs: list[EngineOutput]) -> dict[str, tuple[int, ...]]:
    return {output.request_id: output.new_token_ids for output in outputs}


def begun(num_streams: int = 1) -> OutputPacer:
    """One that has just sent, at 0 s."""
    pacer = OutputPacer(LONGEST_S)
    pacer.put([token(0, f"{number}") for number in range(num_streams)])
    assert len(pacer.due(0.0)) == num_streams
    return pacer


def test_what_comes_after_a_while_goes_at_once() -> None:
    pacer = begun()
    pacer.put([token(1)])
    assert tokens_of(pacer.due(1.0)) == {"a": (1,)}


def test_tokens_of_a_fast_model_travel_together() -> None:
    pacer = begun()
    for number in range(3):
        pacer.put([token(number, "a"), token(10 + number, "b")])
        assert pacer.due(0.0001 * number) == []
    assert tokens_of(pacer.due(0.01)) == {"a": (0, 1, 2), "b": (10, 11, 12)}
    assert pacer.due(0.02) == []


def test_the_more_streams_the_longer_they_wait_but_never_longer_than_the_limit() -> None:
    waits = []
    for num_streams in (1, 8, 200):
        pacer = begun(num_streams)
        pacer.put([token(1, f"{number}") for number in range(num_streams)])
        waits.append(next(ms for ms in range(1000) if pacer.due(ms / 1000)))
    assert waits == sorted(waits)
    assert waits[0] <= 1
    assert waits[-1] == LONGEST_S * 1000


def test_without_a_limit_of_time_nothing_waits() -> None:
    pacer = OutputPacer(0.0)
    for number in range(3):
        pacer.put([token(number)])
        assert tokens_of(pacer.due(0.0)) == {"a": (number,)}


@pytest.mark.parametrize("urgent", [FIRST, LAST])
def test_a_first_and_a_last_token_take_along_what_waits(urgent: EngineOutput) -> None:
    pacer = begun()
    pacer.put([token(7, "b")])
    assert pacer.due(0.0001) == []
    pacer.put([urgent])
    assert tokens_of(pacer.due(0.0002)) == {"b": (7,), "a": urgent.new_token_ids}


def test_flushing_what_is_not_there_sends_nothing() -> None:
    assert OutputPacer(LONGEST_S).flush(0.0) == []


def test_joined_outputs_keep_what_each_told() -> None:
    logprobs = PositionLogprobs((4,), (-0.5,), 1)
    middle = EngineOutput("a", new_token_ids=(4, 5), logprobs=(logprobs, logprobs))
    whole = joined([FIRST, middle, LAST])
    assert whole.new_token_ids == (1, 4, 5, 9)
    assert whole.logprobs == (logprobs, logprobs)
    assert whole.finish_reason is FinishReason.LENGTH
    assert (whole.first_scheduled_time_s, whole.num_cached_tokens) == (5.0, 16)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abc"), max_size=3, unique=True), st.floats(0, 0.01))
    )
)
def test_everything_arrives_once_and_in_order(steps: list[tuple[list[str], float]]) -> None:
    pacer, now_s, number = OutputPacer(LONGEST_S), 0.0, 0
    put: dict[str, tuple[int, ...]] = {}
    sent: dict[str, tuple[int, ...]] = {}
    for request_ids, seconds in [*steps, ([], LONGEST_S)]:
        now_s += seconds
        outputs = []
        for request_id in request_ids:
            number += 1
            outputs.append(token(number, request_id))
            put[request_id] = (*put.get(request_id, ()), number)
        pacer.put(outputs)
        for output in pacer.due(now_s):
            sent[output.request_id] = (*sent.get(output.request_id, ()), *output.new_token_ids)
    assert sent == put
