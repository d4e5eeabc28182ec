"""Requests that two readers could read differently, and headers that claim what is not so: a proxy
in front must not be led to take one request for another, nor a log line to be written by others."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.security.conftest import MINE, OTHER, Serve, Target

BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}).encode()
HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + OTHER.encode()


async def answer_to(target: Target, request: bytes) -> bytes:
    """All that the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def sent(target: Target, *headers: bytes, body: bytes = BODY) -> list[int]:
    """The statuses of all answers to a chat with these headers."""
    own = b"Authorization: Bearer " + MINE.encode()
    kind = b"Content-Type: application/json"
    lines = (b"POST /v1/chat/completions HTTP/1.1", b"Host: a", own, kind, *headers)
    head = b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n"
    told = await answer_to(target, head + body)
    parts = told.split(b"HTTP/1.1 ")[1:]
    return [int(part[:3]) for part in parts]


LENGTH = b"Content-Length: %d" % len(BODY)


# How long is the body, or where do the headers end: by each of two readings, another request.
AMBIGUOUS = (
    (LENGTH, b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked", LENGTH),
    (LENGTH, b"Content-Length: 3"),
    (b"Content-Length: +5",),
    (b"Content-Length: 0x10",),
    (b"Content-Length: 5, 5",),
    (b"Content-Length: -1",),
    (b"Transfer-Encoding: chunked, identity",),
    (b"Transfer-Encoding: xchunked",),
    (b"Transfer-Encoding : chunked",),
    (LENGTH, b"X-Nul: a\0b"),
    (LENGTH, b"X Space: a"),
    (LENGTH, b"X-Bare: a\rSet-Cookie: b"),
)


async def test_what_can_be_read_in_two_ways_is_read_in_none(
    serve: Serve, subtests: pytest.Subtests
) -> None:
    """A second request is hidden behind the body, for whoever reads its length differently."""
    async with serve(receive_timeout=0.3) as target:
        for headers in AMBIGUOUS:
            with subtests.test(headers):
                statuses = await sent(target, *headers, body=BODY + HIDDEN + b"\r\n\r\n")
                assert len(statuses) <= 1
                assert all(400 <= status < 500 for status in statuses), statuses
                assert target.engine.submitted == []


async def test_the_same_without_tricks_is_served(serve: Serve) -> None:
    """So that the tests above fail for their reason."""
    async with serve() as target:
        assert await sent(target, LENGTH) == [200]
        assert await sent(
            target, b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        ) == [200]


CLAIMS = (
    b"X-HTTP-Method-Override: DELETE",
    b"X-Original-URL: /health",
    b"X-Rewrite-URL: /health",
    b"X-Forwarded-Prefix: /health",
    b"X-Forwarded-For: 127.0.0.1",
    b"Forwarded: for=127.0.0.1;host=localhost",
    b"X-Forwarded-Host: localhost",
)


async def test_no_header_takes_the_place_of_a_key_or_a_path(serve: Serve) -> None:
    async with serve() as target:
        for header in CLAIMS:
            head = (b"GET /v1/models HTTP/1.1", b"Host: localhost", header, b"Connection: close")
            answer = await answer_to(target, b"\r\n".join(head) + b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401 "), header


async def test_an_id_of_the_client_s_breaks_no_line_of_an_answer(serve: Serve) -> None:
    async with serve() as target:
        own = b"Authorization: Bearer " + MINE.encode()
        id = b"x-request-id: a\xe2\x80\xa8\x85b\tc"
        head = (b"GET /v1/models HTTP/1.1", b"Host: a", own, id, b"Connection: close")
        answer = await answer_to(target, b"\r\n".join(head) + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        [told] = [
            line for line in answer.split(b"\r\n") if line.lower().startswith(b"x-request-id")
        ]
        assert b"\x85" not in told
        assert b"\t" not in told.partition(b": ")[2]
