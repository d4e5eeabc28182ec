"""Clients that do not read, or leave without a word, harm nobody else."""

from __future__ import annotations

import asyncio
import json

import httpx2

from novacron.testing.waiting import until

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def post_raw(
    url: str, body: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat and read nothing."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    content = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    )
    await writer.drain()
    return reader, writer


async def test_a_client_that_does_not_read_does_not_stall_the_others(server) -> None:
    server.engine.reply = lambda request: "word " * 400
    endless = {**CHAT, "stream": True, "ignore_eos": True, "max_tokens": 2000, "n": 16}
    _, writer = await post_raw(server.url, endless)
    await until(lambda: server.engine.stats.num_running == 16)
    async with httpx2.AsyncClient(base_url=server.url, timeout=10.0) as http:
        answer = await http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 300})
    assert answer.json()["usage"]["completion_tokens"] == 300
    writer.transport.abort()
    await until(lambda: server.engine.stats.num_running == 0)


async def test_a_connection_that_is_reset_ends_its_request(server) -> None:
    server.engine.step_s = 0.001
    for stream in (True, False):
        _, writer = await post_raw(server.url, {**CHAT, "stream": stream, "ignore_eos": True})
        await until(lambda: server.engine.stats.num_running == 1)
        writer.transport.abort()
        await until(lambda: server.engine.stats.num_running == 0)
    assert len(server.engine.aborted) == 2
