"""The real websockets client against a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.serving import serving
from novacron.testing.waiting import until

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ENDLESS = {**CHAT, "ignore_eos": True, "max_tokens": 2000}


def ws_url(server: Any, request_id: str, query: str = "") -> str:
    return f"ws{server.url.removeprefix('http')}/ws/llm/stream/{request_id}{query}"


async def read_all(socket: ClientConnection) -> list[dict[str, Any]]:
    """Events until the server closes; health, which is not part of a stream, left out."""
    events = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            events.append(json.loads(await socket.recv()))
    return [event for event in events if event["type"] != "health"]


async def test_a_call_over_the_socket(server) -> None:
    async with connect(ws_url(server, "w-1")) as socket:
        await socket.send(json.dumps(CHAT))
        events = await read_all(socket)
    assert socket.close_code == 1000
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "metadata"
    assert "".join(e["data"]["text"] for e in events if e["type"] == "token") == "The answer is 42."
    assert events[-1]["type"] == "complete"


async def test_a_socket_attaches_late_and_resumes(server) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        body = {**CHAT, "request_id": "w-2", "background": True}
        assert (await http.post("/api/v1/llm/chat/completions", json=body)).status_code == 202
    async with connect(ws_url(server, "w-2")) as socket:
        events = await read_all(socket)
    async with connect(ws_url(server, "w-2", "?from=3")) as socket:
        assert await read_all(socket) == events[3:]
    assert events[-1]["type"] == "complete"


async def test_cancel_over_the_socket(server) -> None:
    server.engine.step_s = 0.001
    async with connect(ws_url(server, "w-3")) as socket:
        await socket.send(json.dumps(ENDLESS))
        await socket.recv()
        await socket.send('{"type": "cancel"}')
        events = await read_all(socket)
    assert events[-1]["type"] == "complete"
    assert events[-1]["data"]["choices"][0]["finish_reason"] == "abort"
    assert len(server.engine.aborted) == 1


async def test_leaving_ends_the_call_when_the_last_reader_goes(server) -> None:
    server.engine.step_s = 0.001
    async with connect(ws_url(server, "w-4"), max_queue=None) as first:
        await first.send(json.dumps(ENDLESS))
        await first.recv()
        async with connect(ws_url(server, "w-4"), max_queue=None) as second:
            await second.recv()
        await asyncio.sleep(0.02)
        assert server.engine.aborted == []
    await until(lambda: len(server.engine.aborted) == 1)
    async with httpx2.AsyncClient(base_url=server.url) as http:
        replay = await http.get("/api/v1/llm/stream/w-4")
    assert '"type":"error"' in replay.text
    assert "last client went away" in replay.text


async def test_a_silent_socket_gets_health_events(server) -> None:
    server.engine.step_s = 0.2
    async with connect(ws_url(server, "w-5")) as socket:
        await socket.send(json.dumps({**CHAT, "max_tokens": 1}))
        events = [json.loads(message) async for message in socket]
    health = [event for event in events if event["type"] == "health"]
    assert health[0]["data"] == {"status": "ready", "requests_running": 1, "requests_waiting": 0}
    assert health[0]["sequence_number"] == 1


@pytest.mark.parametrize(
    ("request_id", "message", "words"),
    [
        ("w-6", "{", "not valid JSON"),
        ("w-6", "[]", "JSON object"),
        ("w-6", b"\xff", "not valid JSON"),
        ("w-6", '{"messages": []}', "at least 1 item"),
        ("w-6", '{"messages": [{"role": "user", "content": "x"}], "model": "y"}', "not served"),
        ("w-6", '{"type": "cancel"}', "prompt"),
        ("w%206", "{}", "request id"),
    ],
)
async def test_what_is_wrong_is_an_error_event_and_a_close(
    server, request_id: str, message: str | bytes, words: str
) -> None:
    async with connect(ws_url(server, request_id)) as socket:
        with contextlib.suppress(ConnectionClosed):  # refused before it could ask
            await socket.send(message)
        [event] = await read_all(socket)
    assert event["type"] == "error"
    assert words in event["data"]["message"]
    assert socket.close_code == 1008


async def test_death_is_an_error_event(server) -> None:
    server.engine.step_s = 0.001
    async with connect(ws_url(server, "w-7")) as socket:
        await socket.send(json.dumps(ENDLESS))
        await socket.recv()
        server.engine.die()
        events = await read_all(socket)
    assert events[-1]["data"]["code"] == "engine_dead"


async def test_a_socket_needs_the_key_too(tokenizer: Tokenizer) -> None:
    app = build_app(
        FakeEngineClient(tokenizer), ServerConfig(api_key=("secret",)), model_names=("fake",)
    )
    async with serving(app) as url:
        address = f"ws{url.removeprefix('http')}/ws/llm/stream/a"
        with pytest.raises(InvalidStatus) as refused:
            await connect(address)
        assert refused.value.response.status_code == 401
        headers = {"Authorization": "Bearer secret"}
        async with connect(address, additional_headers=headers) as socket:
            await socket.send(json.dumps(CHAT))
            assert (await read_all(socket))[-1]["type"] == "complete"


async def test_a_client_that_vanishes_before_it_asks_leaves_nothing(server) -> None:
    async with connect(ws_url(server, "w-8")) as socket:
        await socket.close()
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert server.engine.submitted == []


async def test_a_socket_that_asks_nothing_is_told_and_closed(tokenizer: Tokenizer) -> None:
    config = ServerConfig(receive_timeout=0.05)
    app = build_app(FakeEngineClient(tokenizer), config, model_names=("fake",))
    async with serving(app) as url:
        address = f"ws{url.removeprefix('http')}/ws/llm/stream/a"
        async with connect(address) as socket:
            [event] = await read_all(socket)
        async with connect(address) as socket:  # one that asks in time may take its time to read
            await socket.send(json.dumps(CHAT))
            await asyncio.sleep(0.1)
            assert (await read_all(socket))[-1]["type"] == "complete"
    assert (event["type"], event["data"]["code"]) == ("error", "receive_timeout")
