"""Messages between client and engine survive the wire, and garbage is refused, not obeyed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.records import wire
from novacron.records.output import EngineOutput, EngineStats
from novacron.records.request import FinishReason, Request, SamplingParams, StructuredOutput
from novacron.records.step import PositionLogprobs

REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError)
IDS = st.lists(st.integers(0, 2**32 - 1), max_size=8).map(tuple)
FLOATS = st.floats(allow_nan=False)
SAMPLING = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=FLOATS,
    top_k=st.integers(0, 10**6),
    logit_bias=st.dictionaries(st.integers(0, 10**6), FLOATS, max_size=3),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(), max_size=3).map(tuple),
    stop_token_ids=IDS,
    structured_output=st.none() | st.just(StructuredOutput("regex", "[0-9]+")),
)
REQUESTS = st.builds(
    Request,
    request_id=st.text(),
    prompt_token_ids=IDS,
    sampling=SAMPLING,
    arrival_time_s=FLOATS,
    priority=st.integers(-(2**31), 2**31),
    cache_salt=st.text(),
    pooling=st.sampled_from([None, "mean", "last"]),
    output_token_ids=IDS,
)
LOGPROBS = st.builds(
    PositionLogprobs, IDS, st.lists(FLOATS, max_size=3).map(tuple), st.integers(1, 10)
)
OUTPUTS = st.builds(
    EngineOutput,
    request_id=st.text(),
    new_token_ids=IDS,
    logprobs=st.lists(LOGPROBS, max_size=2).map(tuple),
    embedding=st.none() | st.lists(FLOATS, max_size=4).map(tuple),
    finish_reason=st.none() | st.sampled_from(FinishReason),
    error=st.none() | st.text(),
)


@given(st.lists(REQUESTS, max_size=3))
def test_requests_survive_the_wire(requests: list[Request]) -> None:
    message = wire.Submit(tuple(requests))
    assert wire.decode_to_engine(wire.encode(message)) == message


@given(st.lists(OUTPUTS, max_size=3), st.integers(0, 2**40))
def test_outputs_survive_the_wire(outputs: list[EngineOutput], num_steps: int) -> None:
    message = wire.Outputs(tuple(outputs), EngineStats(num_steps=num_steps))
    assert wire.decode_from_engine(wire.encode(message)) == message


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for decode in (wire.decode_to_engine, wire.decode_from_engine):
        try:
            decode(data)
        except REFUSALS:
            continue


@given(st.data(), st.lists(REQUESTS, min_size=1, max_size=2))
def test_a_damaged_message_never_becomes_a_half_read_one(
    data: st.DataObject, requests: list[Request]
) -> None:
    encoded = wire.encode(wire.Submit(tuple(requests)))
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(REFUSALS):
        wire.decode_to_engine(encoded[:cut])
