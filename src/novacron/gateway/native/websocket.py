"""WS /ws/llm/stream/{request_id}: the events of a call, one JSON text each.

The socket attaches to a call that runs or ran (`?from=N` resumes), or starts one: if the id is not
known, the first message must be a body as for POST /api/v1/llm/chat/completions or /completions.
At any time {"type": "cancel"} ends the call. Leaving ends it, too, if nobody else listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from novacron.errors import InvalidRequest, NovaCronError, ReceiveTimeout
from novacron.gateway.handover.forwarding import credentials_of
from novacron.gateway.middleware import REQUEST_ID_PATTERN
from novacron.gateway.native.batch import parse_native_body
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.replies import native_call
from novacron.gateway.native.schema import NativeChatBody
from novacron.gateway.native.streams import Asked, Streams
from novacron.gateway.openai.sampling import wish_of
from novacron.gateway.replay import Event, StreamId
from novacron.gateway.service import Service, parse
from novacron.gateway.socket_protocol import chosen

_NORMAL, _REFUSED = 1000, 1008


def websocket_routes(service: Service, generations: Generations, streams: Streams) -> APIRouter:
    router = APIRouter()

    @router.websocket("/ws/llm/stream/{request_id}")
    async def stream(websocket: WebSocket, request_id: str) -> None:
        await websocket.accept(subprotocol=chosen(websocket.scope["headers"]))
        await _Conversation(service, generations, streams, websocket, request_id).run()

    return router


class _Conversation:
    """One connection, for the events of one call."""

    def __init__(
        self,
        service: Service,
        generations: Generations,
        streams: Streams,
        websocket: WebSocket,
        request_id: str,
    ) -> None:
        self._service = service
        self._generations = generations
        self._streams = streams
        self._credentials = credentials_of(websocket.headers.items())
        self._websocket = websocket
        self._stream = StreamId(request_id, service.caller(websocket).tenant)
        self._silent = True

    async def run(self) -> None:
        with suppress(WebSocketDisconnect):
            try:
                events = await self._events()
                await self._send_while_listening(events)
            except NovaCronError as error:
                await self._send(self._generations.error_event(self._stream, error))
                await self._close(_REFUSED)
            else:
                await self._close(_NORMAL)

    async def _events(self) -> AsyncGenerator[Event, None]:
        """Those of the known call, or of the one that the client's first message starts."""
        if not REQUEST_ID_PATTERN.fullmatch(self._stream.request_id):
            raise InvalidRequest(
                "The request id must be 1 to 128 letters, digits or any of . _ : -", "request_id"
            )
        first = self._first_wanted()
        if self._generations.knows(self._stream):
            return self._generations.events(self._stream, first)
        receiving = asyncio.ensure_future(self._first_message())
        looking = asyncio.ensure_future(self._streams.is_known(self._stream))
        try:
            await asyncio.wait((receiving, looking), return_when=asyncio.FIRST_COMPLETED)
            if looking.done() and looking.result():
                events = await self._streams.attach(self._stream, first, self._credentials)
                return _no_events() if events is None else events
            return await self._start(await receiving)
        finally:
            await _end(receiving, looking)

    async def _first_message(self) -> dict[str, Any]:
        timeout_s = self._service.config.receive_timeout
        try:
            return await asyncio.wait_for(self._receive(), timeout_s)
        except TimeoutError:
            raise ReceiveTimeout(timeout_s) from None

    async def _start(self, fields: dict[str, Any]) -> AsyncGenerator[Event, None]:
        body = parse_native_body({**fields, "request_id": self._stream.request_id})
        prefix = "chatcmpl-" if isinstance(body, NativeChatBody) else "cmpl-"
        service = self._service
        origin = service.origin(
            prefix, self._websocket, body.model, self._stream.request_id, wish_of(body)
        )
        origin, body = await service.admitted(self._websocket, origin, body, native_call)
        origin = self._streams.recorded(origin, Asked(body, "native", bool(body.background)))
        parsed = await parse(self._websocket, native_call, body, origin, service.client.tokenizer)
        events = self._generations.stream(parsed)
        return self._streams.follow(events, self._stream, self._credentials)

    def _first_wanted(self) -> int:
        start = self._websocket.query_params.get("from", "0")
        if not start.isdecimal() or len(start) > 15:
            raise InvalidRequest("from must be the number of an event.", "from")
        return int(start)

    async def _send_while_listening(self, events: AsyncGenerator[Event, None]) -> None:
        sending = asyncio.ensure_future(self._send_all(events))
        listening = asyncio.ensure_future(self._listen())
        interval_s = self._service.config.keep_alive_interval
        try:
            while not sending.done() and not listening.done():
                await asyncio.wait(
                    (sending, listening),
                    timeout=interval_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._silent and not sending.done() and not listening.done():
                    await self._send(self._generations.health_event(self._stream))
                self._silent = True
            for task in (listening, sending):
                if task.done():
                    task.result()
        finally:
            for task in (listening, sending):
                task.cancel()
            await asyncio.gather(listening, sending, return_exceptions=True)
            await events.aclose()

    async def _send_all(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                self._silent = False
                await self._send(event.data)

    async def _listen(self) -> None:
        """Returns never; raises WebSocketDisconnect when the client leaves."""
        while True:
            message = await self._receive()
            if message.get("type") != "cancel":
                raise InvalidRequest(
                    'Only {"type": "cancel"} can be sent while a call runs; open another '
                    "connection for another call."
                )
            if not await self._generations.cancel(self._stream):
                await self._streams.cancel(self._stream, self._credentials)

    async def _receive(self) -> dict[str, Any]:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        return _as_object(message.get("text") or message.get("bytes") or "")

    async def _send(self, data: bytes) -> None:
        await self._websocket.send_text(data.decode())

    async def _close(self, code: int) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.close(code)


async def _no_events() -> AsyncGenerator[Event, None]:
    return
    yield


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _as_object(text: str | bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"The message is not valid JSON: {error}.") from error
    if not isinstance(message, dict):
        raise InvalidRequest("The message must be a JSON object.")
    return message
