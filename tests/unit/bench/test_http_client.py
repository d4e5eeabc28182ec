from __future__ import annotations

import asyncio

import pytest

from novacron.bench.http_client import HttpClient
from novacron.bench.transcript import read_transcript
from novacron.errors import ConfigError, NotReady
from novacron.testing.fake_openai_server import FakeOpenAIServer

BODY = b'{"prompt": "x", "max_tokens": 5}'


async def test_a_stream_is_recorded_piece_by_piece(server: FakeOpenAIServer) -> None:
    client = HttpClient(server.url)
    exchange = await client.post("/v1/completions", BODY)
    client.close()
    assert exchange.ok
    times = [at_s for at_s, _ in exchange.chunks]
    assert times == sorted(times)
    assert exchange.started_s <= times[0] <= times[-1] <= exchange.ended_s
    assert read_transcript(exchange).text == "w0 w1 w2 w3 w4 "


async def test_connections_are_kept_and_opened_ahead(server: FakeOpenAIServer) -> None:
    client = HttpClient(server.url)
    await client.open_connections(4)
    for _ in range(3):
        await asyncio.gather(*(client.post("/v1/completions", BODY) for _ in range(4)))
    client.close()
    assert server.num_connections == 4
    assert len(server.bodies) == 12


async def test_an_error_status_is_an_answer(server: FakeOpenAIServer) -> None:
    server.status = 503
    client = HttpClient(server.url)
    exchange = await client.post("/v1/completions", BODY)
    client.close()
    assert (exchange.status, exchange.ok) == (503, False)
    assert b"go away" in exchange.body


async def test_a_connection_that_breaks_is_told_and_not_used_again(
    server: FakeOpenAIServer,
) -> None:
    server.close_after_events = 2
    client = HttpClient(server.url)
    exchange = await client.post("/v1/completions", BODY)
    assert "closed the connection" in (exchange.error or "")
    server.close_after_events = None
    assert (await client.post("/v1/completions", BODY)).ok
    client.close()
    assert server.num_connections == 2


async def test_the_path_of_the_url_and_the_key_are_sent() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        client = HttpClient(f"127.0.0.1:{port}/base/v1/", "secret")
        exchange = await client.get("/health")
        client.close()
    assert exchange.body == b"until the end"
    assert exchange.error is None
    assert heads[0].startswith(b"GET /base/health HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in heads[0]


async def test_nobody_there() -> None:
    async with await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
    with pytest.raises(NotReady, match="No server answers"):
        await HttpClient(f"http://127.0.0.1:{port}").get("/health")


async def test_what_is_not_http_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        exchange = await HttpClient(f"http://127.0.0.1:{port}").get("/health")
    assert "does not speak HTTP" in (exchange.error or "")


@pytest.mark.parametrize("url", ["ftp://host", "http://", "https:///path"])
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the URL of a server"):
        HttpClient(url)
