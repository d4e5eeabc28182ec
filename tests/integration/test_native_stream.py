"""Native streams over real connections: leaving, attaching, staying silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from novacron.testing.waiting import until

BASE = "/api/v1/llm"
ENDLESS = {
    "messages": [{"role": "user", "content": "hi"}],
    "ignore_eos": True,
    "max_tokens": 2000,
    "stream": True,
}


@pytest.fixture
async def http(server) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=10.0) as client:
        yield client


async def events_of(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_leaving_the_stream_ends_the_call(server, http: httpx2.AsyncClient) -> None:
    server.engine.step_s = 0.001
    async with http.stream("POST", f"{BASE}/chat/completions", json=ENDLESS) as response:
        await anext(events_of(response))
    await until(lambda: len(server.engine.aborted) == 1)


async def test_leaving_a_call_that_does_not_stream_ends_it(
    server, http: httpx2.AsyncClient
) -> None:
    server.engine.step_s = 0.001
    body = {**ENDLESS, "stream": False}
    posting = asyncio.create_task(http.post(f"{BASE}/chat/completions", json=body))
    await until(lambda: server.engine.stats.num_running == 1)
    posting.cancel()
    await until(lambda: len(server.engine.aborted) == 1)


async def test_a_call_goes_on_while_somebody_else_listens(server, http: httpx2.AsyncClient) -> None:
    server.engine.step_s = 0.001
    body = {**ENDLESS, "request_id": "shared", "max_tokens": 100}
    async with http.stream("POST", f"{BASE}/chat/completions", json=body) as first:
        await anext(events_of(first))
        attached = asyncio.create_task(http.get(f"{BASE}/stream/shared"))
        await until(lambda: server.engine.stats.generation_tokens > 5)
    last = (await attached).text.rstrip("\n").split("\n\n")[-1]
    assert '"type":"complete"' in last
    assert server.engine.aborted == []


async def test_a_background_stream_can_be_left_and_resumed(
    server, http: httpx2.AsyncClient
) -> None:
    server.engine.step_s = 0.001
    body = {**ENDLESS, "request_id": "left", "max_tokens": 60, "background": True}
    seen = []
    async with http.stream("POST", f"{BASE}/chat/completions", json=body) as response:
        async for event in events_of(response):
            seen.append(event)
            if len(seen) == 3:
                break
    headers = {"Last-Event-ID": str(seen[-1]["sequence_number"])}
    async with http.stream("GET", f"{BASE}/stream/left", headers=headers) as response:
        seen += [event async for event in events_of(response)]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["type"] == "complete"
    assert seen[-1]["data"]["usage"]["completion_tokens"] == 60


async def test_a_silent_stream_tells_its_health(server, http: httpx2.AsyncClient) -> None:
    server.engine.step_s = 0.2
    body = {**ENDLESS, "max_tokens": 1}
    async with http.stream("POST", f"{BASE}/chat/completions", json=body) as response:
        events = [event async for event in events_of(response)]
    health = [event for event in events if event["type"] == "health"]
    assert health
    assert health[0]["data"]["requests_running"] == 1
    kept = [event for event in events if event["type"] != "health"]
    assert [event["sequence_number"] for event in kept] == list(range(len(kept)))


async def test_a_batch_whose_client_left_is_aborted(server, http: httpx2.AsyncClient) -> None:
    server.engine.step_s = 0.001
    body = {"requests": [{**ENDLESS, "stream": False}] * 3}
    posting = asyncio.create_task(http.post(f"{BASE}/batch/completions", json=body))
    await until(lambda: server.engine.stats.num_running == 3)
    posting.cancel()
    await until(lambda: len(server.engine.aborted) == 3)
