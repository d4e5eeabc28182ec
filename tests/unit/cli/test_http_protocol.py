from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from novacron.cli.http_protocol import MAX_HEADER_BYTES, BoundedHttpProtocol
from novacron.testing.waiting import until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    config = uvicorn.Config(
        PlainTextResponse("hello"), http=BoundedHttpProtocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        yield reader, writer
        writer.close()
        server.should_exit = True
        await running


async def answer_to(connection: Connection, num_header_bytes: int) -> bytes:
    """The status line. The headers go in many pieces, the last line after the others."""
    reader, writer = connection
    writer.write(b"GET / HTTP/1.1\r\nhost: server\r\n")
    for _ in range(num_header_bytes // 1024):
        writer.write(b"x: " + b"a" * 1019 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError):
        writer.write(b"\r\n")
    return await asyncio.wait_for(reader.readline(), 10.0)


async def test_headers_of_a_usual_size_pass_again_and_again(connection: Connection) -> None:
    for _ in range(3):
        assert b" 200 " in await answer_to(connection, MAX_HEADER_BYTES // 2)
        await connection[0].readuntil(b"hello")


async def test_endless_headers_are_refused(connection: Connection) -> None:
    with contextlib.suppress(ConnectionError):  # closed while we still write
        assert b" 400 " in await answer_to(connection, 100 * MAX_HEADER_BYTES)
        return
    assert connection[1].is_closing() or connection[0].at_eof()
