from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.gateway.response_caching import OpenedCache
from novacron.records.request import Request
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.memory_store import MemoryStore
from novacron.testing.fake_engine_client import FakeEngineClient

URL = "/v1/chat/completions"
STATUS = "/api/v1/llm/response-cache"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0}
GREEDY_BODIES: dict[str, dict[str, Any]] = {
    URL: HELLO,
    "/v1/completions": {"prompt": ["a", "b"], "temperature": 0, "echo": True, "logprobs": 2},
    "/v1/embeddings": {"input": "hello"},
    "/v1/messages": {"model": "fake", "max_tokens": 50, **HELLO},
    "/v1/responses": {"input": "hello", "temperature": 0},
    "/api/chat": {"model": "fake", **HELLO, "options": {"temperature": 0}},
    "/api/v1/llm/chat/completions": HELLO,
    "/v1/rerank": {"query": "a", "documents": ["b", "c"]},
}


class CountingReplies:
    """Answers that tell how many were computed before."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, request: Request) -> str:
        self.number += 1
        return f"This is answer number {self.number} of many."


def opened() -> OpenedCache:
    store = MemoryStore(1 << 22, time.monotonic)
    return OpenedCache(answers=ResponseCache(store, 60.0), store_name="memory")


@pytest.fixture
def client(tokenizer: Tokenizer) -> FakeEngineClient:
    return FakeEngineClient(tokenizer, reply=CountingReplies())


@pytest.fixture
def http(client: FakeEngineClient, make_http) -> httpx2.AsyncClient:
    app = build_app(client, ServerConfig(), model_names=("fake",), response_cache=opened())
    return make_http(app)


def told(answer: httpx2.Response) -> str:
    """The content, without ids and times."""
    unsaid = ("id", "created", "created_at", "completed_at", "request_id", "performance")
    times = ("total_duration", "prompt_eval_duration", "eval_duration", "item_id")

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in (*unsaid, *times)}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return json.dumps(strip(answer.json()))


@pytest.mark.parametrize("path", GREEDY_BODIES)
async def test_every_dialect_hits(
    http: httpx2.AsyncClient, client: FakeEngineClient, path: str
) -> None:
    body = {**GREEDY_BODIES[path], "stream": False}
    first = await http.post(path, json=body)
    assert first.status_code == 200, first.text
    assert first.headers["x-novacron-cache"] == "miss"
    num_computed = len(client.submitted)
    again = await http.post(path, json=body)
    assert len(client.submitted) == num_computed
    assert again.headers["x-novacron-cache"] == "hit"
    assert again.headers["x-novacron-cache-kind"] == "exact"
    assert again.headers["age"] == "0"
    assert told(again) == told(first)


async def test_a_hit_streams_and_a_stream_is_kept(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
    first = await http.post(URL, json=body)
    again = await http.post(URL, json=body)
    whole = await http.post(URL, json={**HELLO, "logprobs": True})
    assert len(client.submitted) == 1
    assert [r.headers["x-novacron-cache"] for r in (first, again, whole)] == ["miss", "hit", "hit"]
    chunks = [
        [json.loads(line[6:]) for line in r.text.split("\n\n") if line.startswith("data: {")]
        for r in (first, again)
    ]
    texts = [
        "".join(c["choices"][0]["delta"].get("content", "") for c in some if c["choices"])
        for some in chunks
    ]
    assert texts[0] == texts[1] == whole.json()["choices"][0]["message"]["content"]
    assert len(chunks[1]) > 3
    assert chunks[0][-1]["usage"] == chunks[1][-1]["usage"] == whole.json()["usage"]


async def test_what_is_sampled_passes_by_unless_it_opts_in(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    sampled = {**HELLO, "temperature": 1}
    for _ in range(2):
        answer = await http.post(URL, json=sampled)
        assert answer.headers["x-novacron-cache"] == "bypass"
    assert len(client.submitted) == 2
    headers = {"x-novacron-cache": "on"}
    outcomes = [
        (await http.post(URL, json=sampled, headers=headers)).headers["x-novacron-cache"]
        for _ in range(2)
    ]
    assert outcomes == ["miss", "hit"]
    seeded = {**sampled, "seed": 3}
    outcomes = [(await http.post(URL, json=seeded)).headers["x-novacron-cache"] for _ in range(2)]
    assert outcomes == ["miss", "hit"]


async def test_a_request_can_pass_by_or_renew(http: httpx2.AsyncClient) -> None:
    answers = []
    for wish in ("on", "off", "on", "refresh", "on"):
        answer = await http.post(URL, json=HELLO, headers={"x-novacron-cache": wish})
        text = answer.json()["choices"][0]["message"]["content"]
        answers.append((answer.headers["x-novacron-cache"], text.split()[4]))
    assert answers == [("miss", "1"), ("bypass", "2"), ("hit", "1"), ("miss", "3"), ("hit", "3")]
    wrong = await http.post(URL, json=HELLO, headers={"x-novacron-cache": "maybe"})
    assert wrong.status_code == 400
    assert "maybe" in wrong.json()["error"]["message"]


async def test_what_failed_or_was_cancelled_is_not_kept(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.fail_with = "broken"
    assert (await http.post(URL, json=HELLO)).status_code == 500
    client.fail_with = None
    assert (await http.post(URL, json=HELLO)).headers["x-novacron-cache"] == "miss"
    assert (await http.post(URL, json=HELLO)).headers["x-novacron-cache"] == "hit"


async def test_refused_requests_say_nothing_of_the_cache(http: httpx2.AsyncClient) -> None:
    answer = await http.post(URL, json={**HELLO, "max_tokens": 10**6})
    assert answer.status_code == 400
    again = await http.post(URL, json={**HELLO, "max_tokens": 10**6})
    assert again.status_code == 400


async def test_warming_is_always_computed(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    for _ in range(2):
        body = {"messages": HELLO["messages"]}
        assert (await http.post("/api/v1/llm/cache/warm", json=body)).status_code == 200
    assert len(client.submitted) == 2


async def test_tenants_share_nothing_and_flush_their_own(
    client: FakeEngineClient, make_http
) -> None:
    config = ServerConfig(api_key=("operator", "tenant"))
    http = make_http(build_app(client, config, model_names=("fake",), response_cache=opened()))
    operator, tenant = ({"authorization": f"Bearer {key}"} for key in ("operator", "tenant"))
    outcomes = []
    for headers in (operator, tenant, operator, tenant):
        answer = await http.post(URL, json=HELLO, headers=headers)
        outcomes.append(answer.headers["x-novacron-cache"])
    assert outcomes == ["miss", "miss", "hit", "hit"]
    everyone = {"all_tenants": "true"}
    refused = await http.delete(STATUS, headers=tenant, params=everyone)
    assert refused.status_code == 403
    tried = await http.delete(STATUS, headers=tenant, params={"dry_run": "true"})
    assert (tried.json()["entries"], tried.json()["dry_run"]) == (1, True)
    flushed = await http.delete(STATUS, headers=tenant)
    assert flushed.json() == {**tried.json(), "dry_run": False}
    mine = await http.post(URL, json=HELLO, headers=tenant)
    theirs = await http.post(URL, json=HELLO, headers=operator)
    assert mine.headers["x-novacron-cache"] == "miss"
    assert theirs.headers["x-novacron-cache"] == "hit"
    assert (await http.delete(STATUS, headers=operator, params=everyone)).json()["entries"] == 2


async def test_status_and_metrics_count(http: httpx2.AsyncClient) -> None:
    for _ in range(3):
        answer = await http.post(URL, json=HELLO)
    await http.post(URL, json=HELLO, headers={"x-novacron-cache": "off"})
    tokens = answer.json()["usage"]["completion_tokens"]
    status = (await http.get(STATUS)).json()
    assert (status["hits"], status["misses"], status["bypassed"], status["stored"]) == (2, 1, 1, 1)
    assert status["saved_tokens"] == 2 * tokens
    assert status["entries"] == 1
    metrics = (await http.get("/metrics")).text
    assert 'novacron_response_cache_events_total{event="hit",model_name="fake"} 2.0' in metrics
    assert f'cache_saved_tokens_total{{model_name="fake"}} {2.0 * tokens}' in metrics


async def test_without_a_cache_nothing_is_said_of_it(client: FakeEngineClient, make_http) -> None:
    http = make_http(build_app(client, ServerConfig(), model_names=("fake",)))
    answer = await http.post(URL, json=HELLO)
    assert "x-novacron-cache" not in answer.headers
    assert (await http.get(STATUS)).json()["store"] is None
    assert (await http.delete(STATUS)).json()["entries"] == 0
