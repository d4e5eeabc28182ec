"""The engine process is killed under its work: clients are told, and the next engine takes over."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from novacron.testing.server_process import (
    PATIENCE_S,
    ServerProcess,
    StartServer,
    wait_until,
)

CHAT = "/v1/chat/completions"
NATIVE_CHAT = "/api/v1/llm/chat/completions"


@pytest.fixture(scope="module")
def own_server(launch: StartServer) -> ServerProcess:
    return launch().wait_ready()


def chat(max_tokens: int, **fields: object) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": "Tell me about mountains."}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


async def test_everyone_is_told_and_the_next_engine_answers_the_same(
    own_server: ServerProcess,
) -> None:
    server = own_server
    restarts = server.metric("novacron_engine_restarts_total")
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        before = await tokens(http)
        server.pause_engine()  # nothing can end before it is killed
        streams = [asyncio.create_task(last_event(http, CHAT)) for _ in range(4)]
        native = [asyncio.create_task(last_event(http, NATIVE_CHAT)) for _ in range(2)]
        sockets = [asyncio.create_task(last_over_socket(server, f"ws-{n}")) for n in range(2)]
        wholes = [asyncio.create_task(http.post(CHAT, json=chat(4000))) for _ in range(4)]
        server.resume_engine()
        everyone = len(streams) + len(native) + len(sockets) + len(wholes)
        await asyncio.to_thread(
            wait_until, lambda: server.metric("vllm:num_requests_running") == everyone
        )
        server.engine.kill()
        for event in await asyncio.gather(*streams):
            assert event["error"]["code"] == "engine_dead"
        for event in await asyncio.gather(*native, *sockets):
            assert event["type"] == "error"
            assert event["data"]["code"] == "engine_dead"
        for response in await asyncio.gather(*wholes):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "engine_dead"
            assert "retry-after" in response.headers
        not_ready = await http.get("/ready")
        assert not_ready.status_code == 503
        assert not_ready.json()["state"] == "loading"
        assert (await http.get("/health")).status_code == 200
        await asyncio.to_thread(server.wait_ready)
        assert await tokens(http) == before
    assert server.process.poll() is None
    assert server.metric("novacron_engine_restarts_total") == restarts + 1
    await asyncio.to_thread(wait_until, server.is_idle)


async def test_an_engine_that_dies_while_it_finishes_its_work_is_not_replaced(
    own_server: ServerProcess,
) -> None:
    server = own_server
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        stream = asyncio.create_task(last_event(http, CHAT))
        await asyncio.to_thread(wait_until, lambda: server.metric("vllm:num_requests_running") == 1)
        server.pause_engine()
        server.process.terminate()
        await asyncio.to_thread(wait_until, lambda: not server.is_ready())
        server.engine.kill()
        assert (await stream)["error"]["code"] == "engine_dead"
    assert await asyncio.to_thread(server.wait_exit) == 1
    assert "the engine failed" in server.log()


async def tokens(http: httpx2.AsyncClient) -> list[str]:
    answer = await http.post(CHAT, json=chat(48, logprobs=True))
    return [position["token"] for position in answer.json()["choices"][0]["logprobs"]["content"]]


async def last_event(http: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    event = {}
    async with http.stream("POST", path, json=chat(4000, stream=True)) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
    return event


async def last_over_socket(server: ServerProcess, request_id: str) -> dict[str, Any]:
    address = server.url.replace("http://", "ws://")
    event = {}
    async with connect(f"{address}/ws/llm/stream/{request_id}") as connection:
        await connection.send(json.dumps(chat(4000)))
        async for message in connection:
            event = json.loads(message)
    return event
