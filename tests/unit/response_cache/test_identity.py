from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.records.request import Request, SamplingParams, StructuredOutput
from novacron.response_cache.identity import ModelIdentity, is_deterministic, key_of

MODEL = ModelIdentity("v1", "float32", "none", "", "cpu", 2048, (2,))
REQUEST = Request(
    request_id="r", prompt_token_ids=(1, 2, 3), sampling=SamplingParams(), arrival_time_s=0.0
)
replace = msgspec.structs.replace

OTHER_SAMPLING = {
    "max_tokens": 5, "min_tokens": 1, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1,
    "repetition_penalty": 1.1, "frequency_penalty": 0.1, "presence_penalty": 0.1,
    "logit_bias": {1: 1.0}, "seed": 1, "stop": ("x",), "stop_token_ids": (1,),
    "include_stop_str_in_output": True, "ignore_eos": True, "logprobs": 1, "prompt_logprobs": 1,
    "structured_output": StructuredOutput("json_object"), "skip_special_tokens": False,
}  # fmt: skip


def key(request: Request = REQUEST, tenant: str = "", model: ModelIdentity = MODEL) -> str:
    return key_of(tenant, model, [request]).digest


def test_there_is_a_row_for_every_sampling_parameter() -> None:
    assert set(OTHER_SAMPLING) == set(SamplingParams.__struct_fields__)


@pytest.mark.parametrize("name", OTHER_SAMPLING)
def test_every_sampling_parameter_counts(name: str) -> None:
    other = replace(REQUEST, sampling=SamplingParams(**{name: OTHER_SAMPLING[name]}))
    assert key(other) != key()


@pytest.mark.parametrize("name", ModelIdentity.__struct_fields__)
def test_everything_about_the_model_counts(name: str) -> None:
    value = getattr(MODEL, name)
    other = {str: "other", int: 1, tuple: (1,)}[type(value)]
    assert key(model=replace(MODEL, **{name: other})) != key()


def test_prompt_tenant_salt_and_pooling_count() -> None:
    assert key(replace(REQUEST, prompt_token_ids=(1, 2))) != key()
    assert key(replace(REQUEST, cache_salt="s")) != key()
    assert key(replace(REQUEST, pooling="mean")) != key()
    assert key_of("a", MODEL, [REQUEST]) != key_of("b", MODEL, [REQUEST])
    assert key(tenant="a") != key(tenant="b")
    assert key_of("", MODEL, [REQUEST, REQUEST]).digest != key()


def test_what_changes_no_answer_does_not_count() -> None:
    other = replace(
        REQUEST, request_id="s", arrival_time_s=9.0, priority=3, session=b"x", variant="main"
    )
    assert key(other) == key()


@given(st.dictionaries(st.integers(0, 99), st.floats(-9, 9), min_size=2), st.randoms())
def test_the_order_of_a_bias_does_not_count(bias: dict[int, float], random) -> None:
    items = list(bias.items())
    random.shuffle(items)
    one, other = (
        replace(REQUEST, sampling=SamplingParams(logit_bias=each)) for each in (bias, dict(items))
    )
    assert key(one) == key(other)


def test_only_what_would_come_out_the_same_is_deterministic() -> None:
    assert not is_deterministic([REQUEST])
    greedy = replace(REQUEST, sampling=SamplingParams(temperature=0.0))
    assert is_deterministic([greedy, replace(REQUEST, sampling=SamplingParams(seed=3))])
    assert not is_deterministic([greedy, REQUEST])
    assert is_deterministic([replace(REQUEST, pooling="mean")])
