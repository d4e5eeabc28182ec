import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import InvalidRequest
from novacron.records.request import SamplingParams
from novacron.records.sampling_validation import (
    MAX_LOGIT_BIASES,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    validate_sampling,
)

VOCAB_SIZE, MAX_MODEL_LEN = 1000, 128

optional_counts = st.none() | st.integers(0, 20)

valid_params = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(5, MAX_MODEL_LEN),
    min_tokens=st.integers(0, 5),
    temperature=st.floats(0, 1e6),
    top_k=st.integers(-1, 2**31 - 1),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0, 1e6, exclude_min=True),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(st.integers(0, VOCAB_SIZE - 1), st.floats(-100, 100), max_size=3),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), max_size=3
    ).map(tuple),
    stop_token_ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=3).map(tuple),
    logprobs=optional_counts,
    prompt_logprobs=optional_counts,
)


def _validate(sampling: SamplingParams) -> None:
    validate_sampling(sampling, vocab_size=VOCAB_SIZE, max_model_len=MAX_MODEL_LEN)


@given(sampling=valid_params)
def test_what_is_in_range_passes_and_can_cross_the_wire(sampling: SamplingParams) -> None:
    _validate(sampling)
    data = msgspec.msgpack.encode(sampling)
    assert msgspec.msgpack.decode(data, type=SamplingParams) == sampling


not_finite = st.sampled_from([math.nan, math.inf, -math.inf])


def _outside(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(max_value=low, exclude_max=True) | st.floats(min_value=high, exclude_min=True)


INVALID = {
    "max_tokens": st.integers(max_value=0) | st.integers(min_value=2**31),
    "min_tokens": st.integers(max_value=-1) | st.integers(min_value=MAX_MODEL_LEN + 1),
    "temperature": st.floats(max_value=0, exclude_max=True) | not_finite,
    "top_k": st.integers(max_value=-2) | st.integers(min_value=2**31),
    "top_p": _outside(0, 1) | st.just(0.0) | not_finite,
    "min_p": _outside(0, 1) | not_finite,
    "repetition_penalty": st.floats(max_value=0) | not_finite,
    "frequency_penalty": _outside(-2, 2) | not_finite,
    "presence_penalty": _outside(-2, 2) | not_finite,
    "seed": st.integers(min_value=2**63) | st.integers(max_value=-(2**63) - 1),
    "logprobs": st.integers(max_value=-1) | st.integers(min_value=21),
    "prompt_logprobs": st.integers(max_value=-1) | st.integers(min_value=21),
    "stop": st.sampled_from(
        [("",), ("ok", ""), ("x" * 2000,), ("a",) * (MAX_STOP_STRINGS + 1), ("\ud800",)]
    ),
    "stop_token_ids": st.sampled_from(
        [(-1,), (VOCAB_SIZE,), (3, 10**9), (3,) * (MAX_STOP_TOKEN_IDS + 1)]
    ),
    "logit_bias": st.sampled_from(
        [
            {-1: 1.0},
            {VOCAB_SIZE: 1.0},
            {1: 100.5},
            {1: math.nan},
            dict.fromkeys(range(MAX_LOGIT_BIASES + 1), 1.0),
        ]
    ),
}


@pytest.mark.parametrize("field", INVALID)
@given(data=st.data())
def test_what_is_out_of_range_is_refused_by_name(field: str, data: st.DataObject) -> None:
    value = data.draw(INVALID[field])
    sampling = msgspec.structs.replace(SamplingParams(), **{field: value})
    with pytest.raises(InvalidRequest) as caught:
        _validate(sampling)
    # Numbers beyond 64 bits are refused as a type.
    assert caught.value.param in (field, None)
    assert field in str(caught.value) or field == "stop" or caught.value.param is None


def test_min_tokens_is_at_most_max_tokens() -> None:
    with pytest.raises(InvalidRequest, match="min_tokens is 6") as caught:
        _validate(SamplingParams(max_tokens=5, min_tokens=6))
    assert caught.value.param == "min_tokens"


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": "hot"},
        {"top_k": 2.5},
        {"stop": ("a", 3)},
        {"logit_bias": {1: None}},
        {"temperature": object()},
    ],
)
def test_wrong_types_are_refused(sampling: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="type"):
        _validate(msgspec.structs.replace(SamplingParams(), **sampling))


def test_defaults_are_valid() -> None:
    _validate(SamplingParams())
