from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from novacron.errors import NovaCronError, Overloaded
from novacron.gateway.streaming import EventStreamResponse, unless_disconnected
from novacron.testing.waiting import until

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}


class Peer:
    """The other end of an ASGI connection."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")


class Source:
    """Frames, and whether they were closed."""

    def __init__(self, *steps: bytes | Exception | asyncio.Event) -> None:
        self.steps = steps
        self.closed = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            for step in self.steps:
                match step:
                    case bytes():
                        yield step
                    case asyncio.Event():
                        await step.wait()
                    case _:
                        raise step
        finally:
            self.closed = True


def response_of(source: Source, keep_alive_s: float = 60.0) -> EventStreamResponse:
    return EventStreamResponse(
        source.frames(), error_frame=lambda e: f"E:{e}".encode(), keep_alive_s=keep_alive_s
    )


async def test_frames_are_sent_in_order_and_the_source_is_closed() -> None:
    peer, source = Peer(), Source(b"one", b"two")
    await response_of(source)(SCOPE, peer.receive, peer.send)
    assert peer.sent[0]["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in peer.sent[0]["headers"]
    assert not any(name == b"content-length" for name, _ in peer.sent[0]["headers"])
    assert [m["body"] for m in peer.sent[1:]] == [b"one", b"two", b""]
    assert [m["more_body"] for m in peer.sent[1:]] == [True, True, False]
    assert source.closed


async def test_an_error_before_the_first_frame_is_raised_and_nothing_is_sent() -> None:
    peer, source = Peer(), Source(Overloaded("full"))
    with pytest.raises(Overloaded):
        await response_of(source)(SCOPE, peer.receive, peer.send)
    assert peer.sent == []
    assert source.closed


async def test_a_later_error_is_the_last_frame() -> None:
    peer = Peer()
    await response_of(Source(b"one", Overloaded("full")))(SCOPE, peer.receive, peer.send)
    assert peer.body == b"oneE:full"
    assert peer.sent[-1]["more_body"] is False


async def test_a_bug_of_ours_ends_the_stream_with_an_error_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer, source = Peer(), Source(b"one", KeyError("secret"))
    await response_of(source)(SCOPE, peer.receive, peer.send)
    assert peer.body.startswith(b"oneE:The server failed")
    assert b"secret" not in peer.body
    assert "KeyError" in caplog.text
    assert source.closed


async def test_a_silent_stream_gets_comments_and_so_its_status() -> None:
    go_on = asyncio.Event()
    peer, source = Peer(), Source(go_on, Overloaded("full"))
    running = asyncio.create_task(
        response_of(source, keep_alive_s=0.005)(SCOPE, peer.receive, peer.send)
    )
    await until(lambda: peer.body.count(b": keep-alive\n\n") >= 2)
    go_on.set()
    await running
    assert peer.sent[0]["status"] == 200
    assert peer.body.endswith(b"E:full")


async def test_a_client_that_leaves_closes_the_source_at_once() -> None:
    peer, source = Peer(), Source(b"one", asyncio.Event())
    running = asyncio.create_task(response_of(source)(SCOPE, peer.receive, peer.send))
    await until(lambda: peer.body)
    peer.gone.set()
    await running
    assert source.closed


async def test_a_client_that_leaves_while_it_does_not_read_closes_the_source() -> None:
    peer, source = Peer(), Source(b"one", b"two")
    peer.reading.clear()
    running = asyncio.create_task(response_of(source)(SCOPE, peer.receive, peer.send))
    await asyncio.sleep(0.001)
    peer.gone.set()
    await running
    assert source.closed
    assert peer.body == b""


async def test_work_is_cancelled_when_its_client_leaves() -> None:
    peer, cancelled = Peer(), False

    async def work() -> None:
        nonlocal cancelled
        try:
            peer.gone.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(ClientDisconnect):
        await unless_disconnected(Request(SCOPE, peer.receive), work())
    assert cancelled


async def test_work_that_ends_gives_its_result_or_its_error() -> None:
    async def work(error: NovaCronError | None) -> int:
        if error:
            raise error
        return 3

    assert await unless_disconnected(Request(SCOPE, Peer().receive), work(None)) == 3
    with pytest.raises(Overloaded):
        await unless_disconnected(Request(SCOPE, Peer().receive), work(Overloaded("full")))
