from __future__ import annotations

import httpx2

from novacron.testing.fake_engine_client import FakeEngineClient

URL = "/api/v1/llm/batch/completions"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def test_each_request_has_its_own_result_or_error(http: httpx2.AsyncClient) -> None:
    requests = [
        {**CHAT, "request_id": "first"},
        {"prompt": "hello"},
        {"prompt": ""},
        {"messages": []},
        {"neither": 1},
        {**CHAT, "model": "other"},
        {**CHAT, "stream": True},
        {**CHAT, "request_id": "first"},
        {**CHAT, "request_id": 5},
    ]
    answer = (await http.post(URL, json={"requests": requests})).json()
    results = answer["results"]
    assert [result["index"] for result in results] == list(range(len(requests)))
    assert [result["status"] for result in results[:2]] == ["completed"] * 2
    assert results[0]["response"]["choices"][0]["message"]["content"] == "The answer is 42."
    assert results[1]["response"]["choices"][0]["text"] == "The answer is 42."
    assert results[0]["request_id"] == "first"
    assert [result["status"] for result in results[2:]] == ["failed"] * 7
    params = [result["error"]["param"] for result in results[2:]]
    assert params == ["prompt", "messages", "prompt", None, None, "request_id", "request_id"]
    assert (answer["num_completed"], answer["num_failed"]) == (2, 7)


async def test_defaults_hold_where_a_request_says_nothing_else(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {"defaults": {"max_tokens": 3, "seed": 1}, "requests": [CHAT, {**CHAT, "seed": 2}]}
    await http.post(URL, json=body)
    sampling = [request.sampling for request in client.submitted]
    assert [(s.max_tokens, s.seed) for s in sampling] == [(3, 1), (3, 2)]


async def test_a_large_batch_does_not_fill_the_queue_by_itself(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.max_live = 64
    answer = (await http.post(URL, json={"requests": [CHAT] * 200})).json()
    assert answer["num_completed"] == 200


async def test_a_batch_that_is_no_batch_is_refused(http: httpx2.AsyncClient) -> None:
    for body in ({}, {"requests": []}, {"requests": [1]}, {"requests": [CHAT] * 1025}):
        response = await http.post(URL, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"].startswith("requests")
