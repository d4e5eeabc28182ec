"""Clients that send much, slowly, or many times: others are served all the same."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json

import httpx2
import pytest
from tests.security.conftest import MINE, Serve, Target, bearer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
TEN_MB = 10 * 2**20


def http(target: Target) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=target.url, headers=bearer(MINE), timeout=30)


async def is_served(target: Target) -> bool:
    async with http(target) as client:
        return (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": "' + b"x" * TEN_MB + b'"}',
        b"[" * TEN_MB,
        b'{"a":' * (TEN_MB // 5),
        b"\xff" * TEN_MB,
        b'{"messages": [' + b"{}," * (TEN_MB // 3) + b"{}]}",
        b"1" * TEN_MB,
    ],
    ids=["a text", "lists", "objects", "no UTF-8", "many messages", "a number"],
)
async def test_ten_megabytes_are_refused_and_others_served(serve: Serve, body: bytes) -> None:
    async with serve() as target, http(target) as client:
        sending = asyncio.create_task(client.post("/v1/chat/completions", content=body))
        served = await is_served(target)
        answer = await sending
        assert (answer.status_code, served) == (400, True), answer.text[:200]
        assert len(answer.content) < 10_000, "an answer does not quote what was sent"


async def test_beyond_the_limit_a_body_is_413_announced_or_not(serve: Serve) -> None:
    async def pieces():
        for _ in range(8):
            yield b"x" * 1000

    async with serve(max_body_bytes=4000) as target, http(target) as client:
        for content in (b"x" * 8000, pieces()):
            answer = await client.post("/v1/chat/completions", content=content)
            assert answer.status_code == 413
        assert await is_served(target)


@pytest.mark.slow
@pytest.mark.parametrize("part", [b"POST /v1/chat", b"POST / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_slow_senders_are_closed_and_others_served(serve: Serve, part: bytes) -> None:
    """Slowloris: many connections whose headers or bodies never end."""
    async with serve(receive_timeout=0.6, max_connections=150) as target:
        slow = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(100)]
        body = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{"
        for number, (_, writer) in enumerate(slow):
            writer.write(part if number % 2 else body)

        async def drip() -> None:
            while True:
                for number, (_, writer) in enumerate(slow):
                    if number % 2:
                        writer.write(b"a")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await is_served(target)
        async with asyncio.timeout(30):
            answers = await asyncio.gather(
                *(reader.read() for reader, _ in slow), return_exceptions=True
            )
        dripping.cancel()
        assert await is_served(target)
        told = [one for one in answers if isinstance(one, bytes)]
        assert all(b"408" in one or not one or b" 401 " in one for one in told)
        for _, writer in slow:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.slow
async def test_a_flood_of_sockets_is_refused_and_those_there_before_go_on(serve: Serve) -> None:
    async with serve(max_connections=20) as target:
        url = target.url.replace("http", "ws") + "/ws/llm/stream/"

        def open_one(number: int) -> connect:
            return connect(url + str(number), additional_headers=bearer(MINE), open_timeout=60)

        before = [await open_one(number) for number in range(15)]
        flood = await asyncio.gather(
            *(open_one(number) for number in range(100, 160)), return_exceptions=True
        )
        refused = [one for one in flood if isinstance(one, InvalidStatus)]
        opened = [one for one in flood if not isinstance(one, BaseException)]
        assert all(one.response.status_code == 503 for one in refused)
        assert (len(refused) + len(opened), len(opened) <= 5) == (60, True)
        async with httpx2.AsyncClient(base_url=target.url) as client:
            assert (await client.get("/health")).status_code == 200
        for socket in before:
            await socket.send(json.dumps(CHAT))
            events = [json.loads(event) async for event in socket]
            assert events[-1]["type"] != "error"
        for socket in opened:
            await socket.close()
        assert await is_served(target)


@pytest.mark.slow
async def test_a_flood_of_messages_ends_the_socket_that_sends_it(serve: Serve) -> None:
    async with serve() as target:
        target.engine.step_s = 0.02
        url = target.url.replace("http", "ws") + "/ws/llm/stream/talker"
        async with connect(url, additional_headers=bearer(MINE)) as socket:
            await socket.send(json.dumps({**CHAT, "max_tokens": 500, "ignore_eos": True}))
            with contextlib.suppress(Exception):
                for _ in range(1000):
                    await socket.send("{}")
            events = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    events.append(json.loads(await socket.recv()))
        assert events[-1]["type"] == "error"
        assert socket.close_code == 1008
        assert await is_served(target)


def as_protocol(key: bytes) -> str:
    return "novacron.bearer." + base64.urlsafe_b64encode(key).decode().rstrip("=")


async def test_a_browser_sends_its_key_as_a_subprotocol_that_is_not_sent_back(serve: Serve) -> None:
    async with serve() as target:
        url = target.url.replace("http", "ws") + "/ws/llm/stream/browser"
        offer = ["novacron", as_protocol(MINE.encode())]
        async with connect(url, subprotocols=offer) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == "novacron"
            assert socket.response is not None
            assert as_protocol(MINE.encode()) not in str(socket.response.headers)
            await socket.send(json.dumps(CHAT))
            events = [json.loads(event) async for event in socket]
        assert events[-1]["type"] != "error"


@pytest.mark.parametrize(
    "offer",
    [
        ["novacron"],
        ["novacron", as_protocol(b"wrong")],
        ["novacron", "novacron.bearer.!!!"],
        ["novacron", "novacron.bearer."],
        ["novacron", as_protocol(MINE.encode()), as_protocol(b"first-key")],
    ],
)
async def test_other_subprotocols_open_nothing(serve: Serve, offer: list[str]) -> None:
    async with serve() as target:
        url = target.url.replace("http", "ws") + "/ws/llm/stream/browser"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, subprotocols=offer)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 401


async def test_over_http_a_subprotocol_is_no_credential(serve: Serve) -> None:
    async with serve() as target, httpx2.AsyncClient(base_url=target.url) as client:
        headers = {"sec-websocket-protocol": as_protocol(MINE.encode())}
        assert (await client.get("/v1/models", headers=headers)).status_code == 401
