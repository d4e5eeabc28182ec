from __future__ import annotations

import math
from typing import Any

import httpx2
import pytest

from novacron.testing.fake_engine_client import FakeEngineClient

DOCUMENTS = ["the capital of France", "a red apple", "hello"]


async def vector(http: httpx2.AsyncClient, text: str) -> list[float]:
    answer = await http.post("/v1/embeddings", json={"input": text})
    return answer.json()["data"][0]["embedding"]


async def test_scores_are_cosines_of_embeddings(http: httpx2.AsyncClient) -> None:
    body = {"text_1": "hello", "text_2": DOCUMENTS}
    answer = (await http.post("/v1/score", json=body)).json()
    first = await vector(http, "hello")
    for entry, text in zip(answer["data"], DOCUMENTS, strict=True):
        other = await vector(http, text)
        cosine = math.fsum(x * y for x, y in zip(first, other, strict=True))
        assert entry["score"] == pytest.approx(cosine)
    assert answer["data"][2]["score"] == pytest.approx(1)
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]


async def test_each_text_is_computed_once(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {"query": "hello", "documents": ["x", "x", "hello"], "method": "embedding"}
    assert (await http.post("/v1/rerank", json=body)).status_code == 200
    assert len(client.submitted) == 2
    assert all(request.pooling == "mean" for request in client.submitted)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_a_ranking_is_ordered_by_score(http: httpx2.AsyncClient, path: str) -> None:
    body: dict[str, Any] = {
        "query": "hello",
        "documents": [*DOCUMENTS[:2], {"text": "hello"}],
        "method": "embedding",
    }
    answer = (await http.post(path, json=body)).json()
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    best = answer["results"][0]
    assert (best["index"], best["document"]) == (2, {"text": "hello"})
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    short = (await http.post(path, json={**body, "top_n": 1, "return_documents": False})).json()
    assert short["results"] == [{"index": 2, "relevance_score": best["relevance_score"]}]


async def test_likelihood_is_of_the_query_after_the_text(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {"query": "hello", "documents": DOCUMENTS}
    answer = (await http.post("/v1/rerank", json=body)).json()
    assert [r["relevance_score"] for r in answer["results"]] == pytest.approx([math.exp(-0.5)] * 3)
    assert [r["index"] for r in answer["results"]] == [0, 1, 2]
    prompts = [client.tokenizer.decode(request.prompt_token_ids) for request in client.submitted]
    assert prompts == [f"{text}\nhello" for text in DOCUMENTS]


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]},
        {"text_1": "", "text_2": "a"},
        {"text_1": [], "text_2": "a"},
    ],
)
async def test_what_makes_no_pairs_is_refused(
    http: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await http.post("/v1/score", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
