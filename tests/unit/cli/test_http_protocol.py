"""Clients that send slowly, without end, or in too great a number: over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from novacron.cli.http_protocol import (
    MAX_HEADER_BYTES,
    SPARE_CONNECTIONS,
    BoundedHttpProtocol,
    HttpLimits,
)
from novacron.testing.waiting import until

PATIENCE_S = 20.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says hello, and at /slow, after a while. WebSockets stay open."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    with contextlib.suppress(ClientDisconnect):
        await Request(scope, receive).body()
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    await PlainTextResponse("hello")(scope, receive, send)


@contextlib.asynccontextmanager
async def serving(
    protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol, **limits: Any
) -> AsyncIterator[Connect]:
    wanted = HttpLimits(**{"max_connections": 100, "receive_timeout_s": PATIENCE_S, **limits})
    config = uvicorn.Config(
        app,
        http=partial(protocol, limits=wanted),  # type: ignore[arg-type]
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    writers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)

        async def connect() -> Connection:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writers.append(writer)
            return reader, writer

        try:
            yield connect
        finally:
            for writer in writers:
                writer.close()
            server.should_exit = True
            await running


class HeldProtocol(BoundedHttpProtocol):
    """At a request for /held, the server stands still in the middle of reading, until a request has
    come over each other connection, and that connection's timer is due."""

    other_ends: list[socket.socket]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if b"/held" not in data:
            return
        for one in self.other_ends:
            one.sendall(GET)
        for other in self.connections - {self}:
            assert isinstance(other, HeldProtocol)
            if other.timeout_keep_alive_task is not None:
                other.timeout_keep_alive_task.cancel()
                other.timeout_keep_alive_task = self.loop.call_later(
                    0.001, other.timeout_keep_alive_handler
                )
            else:
                other._end_waiting()
                other._deadline = self.loop.call_later(0.001, other._look_once_more)
        time.sleep(0.02)


async def read_all(connection: Connection) -> bytes:
    """Everything until the server closes."""
    return await asyncio.wait_for(connection[0].read(), PATIENCE_S)


async def status_of(connection: Connection) -> bytes:
    line = await asyncio.wait_for(connection[0].readline(), PATIENCE_S)
    return line.split()[1]


def error_of(response: bytes) -> Any:
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return json.loads(body)["error"]


async def send_headers(connection: Connection, num_header_bytes: int) -> None:
    """In many pieces, the last line after the others."""
    _, writer = connection
    writer.write(b"GET / HTTP/1.1\r\nhost: server\r\n")
    for _ in range(num_header_bytes // 1024):
        writer.write(b"x: " + b"a" * 1019 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError):
        writer.write(b"\r\n")


@pytest.mark.parametrize("has_asked_before", [True, False])
def test_what_came_while_the_server_was_held_is_answered(has_asked_before: bool) -> None:
    """uvloop's timers run right after it has read: before it reads what came during that."""
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        async with serving(HeldProtocol) as connect:
            reader, writer = waiting = await connect()
            if has_asked_before:
                writer.write(GET)
                assert await status_of(waiting) == b"200"
                await reader.readuntil(b"hello")
            descriptor = os.dup(writer.get_extra_info("socket").fileno())
            with socket.socket(fileno=descriptor) as other_end:
                HeldProtocol.other_ends = [other_end]
                other = await connect()
                other[1].write(GET.replace(b"GET /", b"GET /held"))
                assert await status_of(other) == b"200"
                assert await status_of(waiting) == b"200"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_headers_of_a_usual_size_pass_again_and_again() -> None:
    async with serving() as connect:
        connection = await connect()
        for _ in range(3):
            await send_headers(connection, MAX_HEADER_BYTES // 2)
            assert await status_of(connection) == b"200"
            await connection[0].readuntil(b"hello")


async def test_endless_headers_are_refused() -> None:
    async with serving() as connect:
        connection = await connect()
        with contextlib.suppress(ConnectionError):  # closed while we still write
            await send_headers(connection, 100 * MAX_HEADER_BYTES)
            assert await status_of(connection) == b"431"


@pytest.mark.parametrize(
    "part",
    [
        b"GET / HTTP/1.1\r\nhost: loc",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nfive!",
    ],
)
async def test_a_request_that_does_not_arrive_in_time_is_told_so(part: bytes) -> None:
    async with serving(receive_timeout_s=0.1) as connect:
        connection = await connect()
        connection[1].write(part)
        response = await read_all(connection)
    assert response.startswith(b"HTTP/1.1 408 ")
    assert error_of(response)["code"] == "receive_timeout"


async def test_sending_drop_by_drop_does_not_help() -> None:
    async with serving(receive_timeout_s=0.2) as connect:
        connection = await connect()

        async def drip() -> None:
            connection[1].write(b"POST / HTTP/1.1\r\ncontent-length: 100000\r\n\r\n")
            while True:
                connection[1].write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionResetError):  # what came after the end was not read
            assert (await read_all(connection)).startswith(b"HTTP/1.1 408 ")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with serving(receive_timeout_s=0.1) as connect:
        assert await read_all(await connect()) == b""


async def test_the_deadline_is_of_each_request_and_not_of_its_answer() -> None:
    async with serving(receive_timeout_s=0.1) as connect:
        connection = await connect()
        for path in (b"/slow", b"/", b"/slow"):
            connection[1].write(GET.replace(b"/ ", path + b" ", 1))
            assert await status_of(connection) == b"200"
            await connection[0].readuntil(b"hello")


async def test_what_we_do_not_read_yet_is_not_late() -> None:
    """The second request waits for the answer to the first."""
    async with serving(receive_timeout_s=0.1) as connect:
        connection = await connect()
        connection[1].write(GET.replace(b"/ ", b"/slow ", 1) + GET[:-2])
        await connection[0].readuntil(b"hello")
        connection[1].write(GET[-2:])
        await connection[0].readuntil(b"hello")


async def test_too_many_connections_are_refused_and_probes_pass() -> None:
    async with serving(max_connections=2) as connect:
        held = [await connect() for _ in range(2)]
        for connection in held:
            connection[1].write(GET)
            assert await status_of(connection) == b"200"
        for request in (GET, UPGRADE):
            refused = await connect()
            refused[1].write(request)
            response = await read_all(refused)
            assert response.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in response
            assert error_of(response)["code"] == "overloaded"
        probe = await connect()
        probe[1].write(GET.replace(b"/ ", b"/health ", 1))
        assert await status_of(probe) == b"200"


async def test_a_place_that_is_left_can_be_taken() -> None:
    async with serving(max_connections=1) as connect:
        first = await connect()
        first[1].write(UPGRADE)
        assert await status_of(first) == b"101"
        for expected in (b"503", b"200"):
            connection = await connect()
            connection[1].write(GET)
            assert await status_of(connection) == expected
            first[1].close()
            await first[1].wait_closed()
            connection[1].close()
            await asyncio.sleep(0.05)


async def test_far_too_many_connections_are_not_accepted() -> None:
    async with serving(max_connections=1) as connect:
        held = [await connect() for _ in range(1 + SPARE_CONNECTIONS)]
        with contextlib.suppress(ConnectionError):
            assert await read_all(await connect()) == b""
        held[0][1].write(GET)
        assert await status_of(held[0]) in (b"200", b"503")
