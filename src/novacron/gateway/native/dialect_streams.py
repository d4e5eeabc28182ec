"""Streams of the other APIs, where streams outlive their server.

Each is run as a native call, which its client reads in the words of its own API. So what it has
been told is on record, and can be read on as native events, here and elsewhere. Server-sent events
tell the number of the native event that says as much.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response

from novacron.gateway.calls import CallOrigin
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.replies import NativeCall
from novacron.gateway.native.streams import Asked, Streams
from novacron.gateway.recording import UNRECORDED
from novacron.gateway.replay import StreamId
from novacron.gateway.service import OPENAI_STREAM, Reply, Service
from novacron.gateway.streaming import StreamForm

_EVENTS: Final = "text/event-stream"
_END: Final = b"\n\n"  # of an event; there is none within one


class DialectStreams:
    """For the routes of all APIs but our own."""

    def __init__(self, service: Service, generations: Generations, streams: Streams) -> None:
        self._service = service
        self._generations = generations
        self._streams = streams

    def recorded(self, origin: CallOrigin, asked: Asked) -> CallOrigin:
        """For a call that is to be streamed. Without a record, if the client has used the same
        `x-request-id` for another stream: most do not mean anything by it."""
        stream = StreamId(origin.request_id, origin.caller.tenant)
        if self._generations.knows(stream):
            return origin
        return self._streams.recorded(origin, asked)

    def respond(self, reply: Reply, form: StreamForm = OPENAI_STREAM) -> Response:
        """Run the call of `reply`, and send its chunks as they come."""
        origin = reply.call.origin
        stream = StreamId(origin.request_id, origin.caller.tenant)
        if origin.record is UNRECORDED or self._generations.knows(stream):
            origin.record.go_without()
            return self._service.stream(reply, form)
        return self._service.stream_of(
            self._frames(reply, has_numbers=form.media_type == _EVENTS), form
        )

    async def _frames(self, reply: Reply, *, has_numbers: bool) -> AsyncGenerator[bytes, None]:
        call = NativeCall(reply.twin(), None, False)
        number = 0
        async with aclosing(self._generations.outputs(call)) as outputs:
            async for output, number in outputs:
                if frames := reply.frames(output):
                    yield _numbered(frames, number) if has_numbers else frames
        frames = reply.last_frames()
        yield _numbered(frames, number + 1) if has_numbers else frames


def _numbered(frames: bytes, number: int) -> bytes:
    """The last of the events says which number all that was told until then has."""
    events = frames.removesuffix(_END)
    before, end, last = events.rpartition(_END)
    return b"%b%bid: %d\n%b%b" % (before, end, number, last, _END)
