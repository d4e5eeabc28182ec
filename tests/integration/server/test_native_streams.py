"""The real server's own API: server-sent events and WebSockets that attach, resume and cancel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from novacron.testing.server_process import PATIENCE_S, ServerProcess, wait_until

CHAT = "/api/v1/llm/chat/completions"
STREAM = "/api/v1/llm/stream"


def body(request_id: str, *, max_tokens: int = 60, **fields: object) -> dict[str, object]:
    return {
        "request_id": request_id,
        "messages": [{"role": "user", "content": "Tell me about rivers."}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


@pytest.fixture
def request_id() -> str:
    return uuid4().hex


def socket(server: ServerProcess, request_id: str, start: int = 0) -> connect:
    address = server.url.replace("http://", "ws://")
    return connect(f"{address}/ws/llm/stream/{request_id}?from={start}", open_timeout=PATIENCE_S)


async def read_socket(connection: ClientConnection) -> list[dict[str, Any]]:
    return [json.loads(message) async for message in connection]


async def read_sse(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def read_stream(
    http: httpx2.AsyncClient, request_id: str, **headers: str
) -> list[dict[str, Any]]:
    async with http.stream("GET", f"{STREAM}/{request_id}", headers=headers) as response:
        assert response.status_code == 200
        return [event async for event in read_sse(response)]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["data"]["text"] for event in events if event["type"] == "token")


def without_health(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] != "health"]


async def test_everyone_reads_the_same_events_whenever_they_come(
    server: ServerProcess, http: httpx2.AsyncClient, request_id: str
) -> None:
    async with http.stream("POST", CHAT, json=body(request_id, stream=True)) as response:
        assert response.status_code == 200
        events = read_sse(response)
        seen = [await anext(events) for _ in range(3)]
        async with socket(server, request_id) as late:  # attaches while it runs
            seen += [event async for event in events]
            over_socket = await read_socket(late)
    afterwards = await read_stream(http, request_id)
    assert seen == without_health(over_socket) == afterwards
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[0]["type"] == "metadata"
    assert {event["type"] for event in seen[1:-1]} == {"token"}
    assert seen[-1]["type"] == "complete"
    assert seen[-1]["data"]["usage"]["completion_tokens"] == 60


async def test_a_cut_connection_resumes_where_it_was(
    server: ServerProcess, http: httpx2.AsyncClient, request_id: str
) -> None:
    accepted = await http.post(CHAT, json=body(request_id, background=True, max_tokens=100))
    assert accepted.status_code == 202
    first: list[dict[str, Any]] = []
    async with socket(server, request_id) as connection:
        while len(first) < 5:
            first += without_health([json.loads(await connection.recv())])
        connection.transport.abort()  # as if the network broke
    next_number = first[-1]["sequence_number"] + 1
    async with socket(server, request_id, start=next_number) as connection:
        rest = without_health(await read_socket(connection))
    by_sse = await read_stream(http, request_id, **{"Last-Event-ID": str(next_number - 1)})
    assert by_sse == rest
    assert first + rest == await read_stream(http, request_id)
    whole = await http.post(CHAT, json=body(uuid4().hex, max_tokens=100))
    assert text_of(first + rest) == whole.json()["choices"][0]["text"]


async def test_cancel_over_the_socket_frees_what_the_call_held(
    server: ServerProcess, http: httpx2.AsyncClient, request_id: str
) -> None:
    async with socket(server, request_id) as connection:
        await connection.send(json.dumps(body(request_id, n=8, max_tokens=3900)))
        while json.loads(await connection.recv())["type"] != "token":
            pass
        await connection.send(json.dumps({"type": "cancel"}))
        events = await read_socket(connection)
    assert events[-1]["type"] == "complete"
    choices = events[-1]["data"]["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["abort"] * 8
    await asyncio.to_thread(wait_until, server.is_idle)


async def test_cancel_over_http(
    server: ServerProcess, http: httpx2.AsyncClient, request_id: str
) -> None:
    asked = body(request_id, background=True, n=8, max_tokens=3900)
    assert (await http.post(CHAT, json=asked)).status_code == 202
    cancelled = await http.delete(f"/api/v1/llm/requests/{request_id}")
    assert cancelled.status_code == 200
    events = await read_stream(http, request_id)
    assert events[-1]["type"] in ("complete", "error")
    assert (await http.delete(f"/api/v1/llm/requests/{request_id}")).status_code == 404
    await asyncio.to_thread(wait_until, server.is_idle)


async def test_unknown_streams_and_wrong_bodies_are_told_apart(
    server: ServerProcess, http: httpx2.AsyncClient, request_id: str
) -> None:
    assert (await http.get(f"{STREAM}/{request_id}")).status_code == 404
    async with socket(server, request_id) as connection:
        await connection.send(json.dumps({"messages": "not a list"}))
        event = json.loads(await connection.recv())
        with pytest.raises(ConnectionClosedError, match="1008"):
            await connection.recv()
    assert event["type"] == "error"
    assert "messages" in event["data"]["message"]


def test_the_metrics_are_sampled_though_nobody_looks(server: ServerProcess) -> None:
    def num_samples() -> int:
        inference = server.get("/api/v1/llm/metrics").json()["inference_metrics"]
        return len(inference["throughput"]["tokens_per_second"])

    looks = 0
    before = num_samples()  # each look adds one

    def sampled_by_itself() -> bool:
        nonlocal looks
        looks += 1
        return num_samples() > before + looks

    wait_until(sampled_by_itself, poll_s=0.25)


def test_the_cluster_is_the_engine_process(server: ServerProcess) -> None:
    status = server.get("/api/v1/llm/cluster/status").json()
    assert status["cluster"]["active_workers"] == 1
    assert [worker["pid"] for worker in status["workers"]] == [server.engine.pid]
