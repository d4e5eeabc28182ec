"""Sending what is produced piece by piece, and noticing that nobody listens any more.

Whoever leaves ends the work done for him: closing the source of a stream aborts its requests.
Knows nothing of what the frames say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from novacron.errors import NovaCronError, RequestFailed

T = TypeVar("T")

logger = logging.getLogger(__name__)

_COMMENT = b": keep-alive\n\n"
_HEADERS = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would otherwise collect the stream
}


def frame(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % data


DONE = frame(b"[DONE]")


@dataclass(frozen=True)
class StreamForm:
    """How a dialect writes what is no output: an error, and a sign of life on a silent stream."""

    error_frame: Callable[[NovaCronError], bytes]
    keep_alive_frame: Callable[[], bytes] = lambda: _COMMENT
    media_type: str = "text/event-stream"


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has gone. The body of the request must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_disconnected(request: Request, work: Coroutine[None, None, T]) -> T:
    """The result of `work`. Cancels it and raises ClientDisconnect if the client goes away.

    `work` runs in the task that it is called in: a task of its own costs as much as routing does.
    """
    task = asyncio.current_task()
    assert task is not None
    is_working, has_left = True, False

    def end_work(leaving: asyncio.Task[None]) -> None:
        nonlocal has_left
        if is_working and not leaving.cancelled():
            leaving.exception()
            has_left = True
            task.cancel()

    leaving = asyncio.ensure_future(wait_for_disconnect(request.receive))
    leaving.add_done_callback(end_work)
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        is_working = False
        leaving.cancel()


class EventStreamResponse(Response):
    """Pieces from `frames`, which is closed whatever happens; server-sent events unless
    `media_type` says otherwise.

    The status line waits for the first frame, so that an error until then has its own status; but
    no longer than `keep_alive_s`, after which comments show that the connection lives. A later
    error becomes a frame made by `error_frame`, the last one.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        error_frame: Callable[[NovaCronError], bytes],
        keep_alive_s: float,
        keep_alive_frame: Callable[[], bytes] = lambda: _COMMENT,
        media_type: str = "text/event-stream",
    ) -> None:
        super().__init__(headers=_HEADERS, media_type=media_type)
        del self.headers["content-length"]
        self._frames = frames
        self._error_frame = error_frame
        self._keep_alive_s = keep_alive_s
        self._keep_alive_frame = keep_alive_frame
        self._started = False
        self._silent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(send))
        leaving = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            while not writing.done() and not leaving.done():
                await asyncio.wait(
                    (writing, leaving),
                    timeout=self._keep_alive_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._silent and not writing.done() and not leaving.done():
                    await self._send(send, self._keep_alive_frame())
                self._silent = True
            if writing.done():
                writing.result()
        finally:
            await _end(writing, leaving)

    async def _write(self, send: Send) -> None:
        async with aclosing(self._frames):
            try:
                async for piece in self._frames:
                    self._silent = False
                    await self._send(send, piece)
            except Exception as error:
                if not self._started or isinstance(error, OSError):  # OSError: the peer is gone
                    raise
                await self._send(send, self._error_frame(_as_told(error)))
            await self._send(send, b"", more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        if not self._started:
            self._started = True
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
        await send({"type": "http.response.body", "body": body, "more_body": more})


def _as_told(error: Exception) -> NovaCronError:
    """What the client hears: a bug of ours goes to the log, not to the client."""
    if isinstance(error, NovaCronError):
        return error
    logger.error("a stream broke off by an unexpected error", exc_info=error)
    return RequestFailed("The server failed while it answered. The request can be sent again.")


async def _end(*tasks: asyncio.Future[T] | asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
