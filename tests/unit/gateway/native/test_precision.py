from __future__ import annotations

import json
from typing import Any

import httpx2
import msgspec
import pytest

from novacron.gateway.native.precision import PrecisionWish
from novacron.records.output import ModelSpec
from novacron.testing.fake_engine_client import FakeEngineClient

BASE = "/api/v1/llm"


def warnings(
    spec: ModelSpec, quantization: str | None = None, quality: str | float | None = None
) -> tuple[str, ...]:
    return PrecisionWish(quantization, quality).warnings(spec)


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
        ("none", "float32", "q4_k_m", "float32"),
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
