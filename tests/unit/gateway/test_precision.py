from __future__ import annotations

import dataclasses
import json
from typing import Any

import httpx2
import msgspec
import pytest

from novacron.engine.client import EngineState, VariantStatus
from novacron.gateway.precision import PrecisionWish, VariantChoice, choose_variant
from novacron.records.output import EngineStats, ModelSpec
from novacron.testing.fake_engine_client import FakeEngineClient

BASE = "/api/v1/llm"


def warnings(
    spec: ModelSpec, quantization: str | None = None, quality: str | float | None = None
) -> tuple[str, ...]:
    return choose_variant(PrecisionWish(quantization, quality), [variant("x", spec)]).warnings


def variant(name: str, spec: ModelSpec | None, **facts: Any) -> VariantStatus:
    ready = {
        "state": EngineState.READY, "stats": EngineStats(), "num_restarts": 0, "engine_pid": None,
        "is_default": name == "x",
    }  # fmt: skip
    return VariantStatus(name=name, spec=spec, **{**ready, **facts})


@pytest.mark.parametrize(
    ("loaded", "dtype", "asked"),
    [
        ("none", "bfloat16", "bf16"),
        ("none", "bfloat16", "BFloat16"),
        ("none", "float32", " FP32 "),
        ("none", "float16", "none"),
        ("int8 in groups of 32", "bfloat16", "INT8"),
        ("int4 in groups of 128", "float32", "int4"),
        ("int4 in groups of 128", "float32", "auto"),
        ("none", "float32", ""),
        ("none", "float32", None),
    ],
)
def test_what_is_loaded_needs_no_word(
    client: FakeEngineClient, loaded: str, dtype: str, asked: str | None
) -> None:
    spec = msgspec.structs.replace(client.spec, quantization=loaded, dtype=dtype)
    assert warnings(spec, asked) == ()


@pytest.mark.parametrize(
    ("loaded", "dtype", "asked", "served"),
    [
        ("none", "bfloat16", "int8", "bfloat16"),
        ("none", "bfloat16", "fp32", "bfloat16"),
        ("int8 in groups of 32", "bfloat16", "int4", "int8 in groups of 32"),
        ("int8 in groups of 32", "bfloat16", "bf16", "int8 in groups of 32"),
        ("int8 in groups of 32", "bfloat16", "none", "int8 in groups of 32"),
    ],
)
def test_another_precision_is_told_with_what_was_served(
    client: FakeEngineClient, loaded: str, dtype: str, asked: str, served: str
) -> None:
    spec = msgspec.structs.replace(client.spec, quantization=loaded, dtype=dtype)
    [warning] = warnings(spec, asked)
    assert warning.startswith(f"quantization '{asked}' is not loaded")
    assert f"computed in {served}." in warning


@pytest.mark.parametrize(("asked", "number"), [("balanced", 1), (0.97, 1), ("auto", 0), (None, 0)])
def test_a_preference_has_nothing_to_choose_from(
    client: FakeEngineClient, asked: str | float | None, number: int
) -> None:
    found = warnings(client.spec, quality=asked)
    assert len(found) == number
    assert all("one variant" in warning and repr(asked) in warning for warning in found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wish", "number"),
    [
        ({}, 0),
        ({"quantization": "int3"}, 1),
        ({"quantization": "int3", "quality_preference": 1}, 2),
    ],
)
async def test_replies_and_streams_carry_the_warnings(
    http: httpx2.AsyncClient, stream: bool, wish: dict[str, Any], number: int
) -> None:
    body = {"prompt": "hello", "stream": stream, **wish}
    response = await http.post(f"{BASE}/completions", json=body)
    if stream:
        last = [line for line in response.text.splitlines() if line.startswith("data: ")][-1]
        event = json.loads(last.removeprefix("data: "))
        assert event["type"] == "complete"
        answer = event["data"]
    else:
        answer = response.json()
        assert answer["model_info"]["quantization"] == "none"
    assert len(answer["warnings"]) == number


@pytest.fixture
def three(client: FakeEngineClient) -> list[VariantStatus]:
    """int8 is the main one; their bytes say which is finer."""

    def loaded(name: str, quantization: str, bits: float, **facts: Any) -> VariantStatus:
        spec = msgspec.structs.replace(
            client.spec,
            quantization=quantization,
            dtype="bfloat16",
            num_parameters=1000,
            weight_bytes=int(125 * bits),
        )
        return variant(name, spec, **{"is_default": False, **facts})

    return [
        loaded("int8", "int8 in groups of 32", 8.5, is_default=True),
        loaded("int4", "int4, int8 in groups of 32", 4.8),
        loaded("none", "none", 16.0),
    ]


@pytest.mark.parametrize(
    ("asked", "given", "is_warned"),
    [
        (None, "int8", False),
        ("auto", "int8", False),
        ("int4", "int4", False),
        ("INT8", "int8", False),
        ("none", "none", False),
        ("bf16", "none", False),
        ("fp32", "none", True),  # the finest there is
        ("fp16", "none", True),
        ("fp8", "int8", True),
        ("balanced", "int8", True),
        ("memory_critical", "int4", True),
        ("q5_k", "int8", True),  # says nothing: the default
    ],
)
def test_the_nearest_variant_answers(
    three: list[VariantStatus], asked: str | None, given: str, is_warned: bool
) -> None:
    choice = choose_variant(PrecisionWish(asked), three)
    assert choice.variant == given
    assert len(choice.warnings) == is_warned


@pytest.mark.parametrize(
    ("preference", "given", "is_warned"),
    [
        ("quality", "none", False),
        ("speed", "int4", False),
        ("Balanced", "int8", False),
        (0, "int4", False),
        (0.5, "int8", False),
        (1.0, "none", False),
        (1.5, "int8", True),
        ("tasty", "int8", True),
    ],
)
def test_a_preference_chooses_among_the_loaded(
    three: list[VariantStatus], preference: str | float, given: str, is_warned: bool
) -> None:
    choice = choose_variant(PrecisionWish(None, preference), three)
    assert choice.variant == given
    assert len(choice.warnings) == is_warned


def test_a_wish_that_is_no_precision_is_told_what_is(three: list[VariantStatus]) -> None:
    [warning] = choose_variant(PrecisionWish("q5_k"), three).warnings
    assert "'q5_k' is not known" in warning
    assert "Loaded are int8, int4, none; known are float32" in warning
    [warning] = choose_variant(PrecisionWish("fp8"), three).warnings
    assert "'fp8' is not loaded" in warning


def test_a_precision_goes_before_a_preference_and_says_so(three: list[VariantStatus]) -> None:
    choice = choose_variant(PrecisionWish("int4", "quality"), three)
    assert choice.variant == "int4"
    [warning] = choice.warnings
    assert "'quality' was not used" in warning


def test_what_is_not_ready_is_not_chosen(three: list[VariantStatus]) -> None:
    dead = dataclasses.replace(three[2], state=EngineState.DEAD)
    choice = choose_variant(PrecisionWish("none"), [*three[:2], dead])
    assert choice.variant == "int8"
    assert "'none' is out of order: the answer was computed in int8" in choice.warnings[0]
    later = dataclasses.replace(three[2], state=EngineState.LOADING)
    assert "still loading" in choose_variant(PrecisionWish("none"), [*three[:2], later]).warnings[0]
    nobody = [dataclasses.replace(one, state=EngineState.LOADING) for one in three]
    assert choose_variant(PrecisionWish("none"), nobody) == VariantChoice("int8")
