from __future__ import annotations

import base64
import math
from array import array
from typing import Any

import httpx2
import pytest

from novacron.testing.fake_engine_client import FakeEngineClient

URL = "/v1/embeddings"


def length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


async def test_vectors_have_unit_length_and_usage_counts_tokens(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    answer = (await http.post(URL, json={"input": ["hello", "world"], "pooling": "last"})).json()
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert all(math.isclose(length(e["embedding"]), 1.0) for e in answer["data"])
    assert [request.pooling for request in client.submitted] == ["last", "last"]
    num_tokens = sum(len(request.prompt_token_ids) for request in client.submitted)
    assert answer["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


async def test_base64_holds_the_same_floats(http: httpx2.AsyncClient) -> None:
    plain = (await http.post(URL, json={"input": "hello"})).json()["data"][0]["embedding"]
    body = {"input": "hello", "encoding_format": "base64"}
    packed = (await http.post(URL, json=body)).json()["data"][0]["embedding"]
    unpacked = array("f", base64.b64decode(packed))
    assert list(unpacked) == pytest.approx(plain)


async def test_fewer_dimensions_are_cut_and_scaled_again(http: httpx2.AsyncClient) -> None:
    full = (await http.post(URL, json={"input": [5, 6]})).json()["data"][0]["embedding"]
    body = {"input": [[5, 6]], "dimensions": 3}
    cut = (await http.post(URL, json=body)).json()["data"][0]["embedding"]
    scale = length(full[:3])
    assert cut == pytest.approx([value / scale for value in full[:3]])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"dimensions": 9}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    http: httpx2.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(URL, json={"input": "hello", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)
