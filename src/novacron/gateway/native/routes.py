"""The native endpoints that generate, and those that read, resume and cancel streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import uuid4

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from novacron.errors import InvalidRequest, NovaCronError, RequestNotFound
from novacron.gateway.handover.forwarding import credentials_of, was_forwarded
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.middleware import request_id_of
from novacron.gateway.native.batch import run_batch
from novacron.gateway.native.events import Accepted, BatchResponse, Cancelled, InferenceResponse
from novacron.gateway.native.generations import Generations, stream_of
from novacron.gateway.native.replies import NativeBody, NativeCall, native_call
from novacron.gateway.native.schema import BatchBody, NativeChatBody, NativeCompletionBody
from novacron.gateway.native.streams import Asked, Streams
from novacron.gateway.openai.sampling import wish_of
from novacron.gateway.openapi import AnswerSchemas, Responses
from novacron.gateway.replay import Event, StreamId
from novacron.gateway.service import Service, parse
from novacron.gateway.streaming import EventStreamResponse, unless_disconnected

_ACCEPTED = 202
_NOTHING_MORE = 204


def native_routes(
    service: Service, generations: Generations, streams: Streams, schemas: AnswerSchemas
) -> APIRouter:
    router = APIRouter(prefix="/api/v1/llm", tags=["Native"], route_class=StrictJsonRoute)
    _add_generation(router, service, generations, streams, schemas)
    _add_streams(router, service, generations, streams, schemas)
    return router


def _add_generation(
    router: APIRouter,
    service: Service,
    generations: Generations,
    streams: Streams,
    schemas: AnswerSchemas,
) -> None:
    answers = schemas.answers(InferenceResponse, streams=True)
    accepted: Responses = {_ACCEPTED: schemas.answers(Accepted, status=_ACCEPTED)[_ACCEPTED]}

    async def generate(body: NativeBody, request: Request, prefix: str) -> Response:
        request_id = body.request_id
        sent = _stream_id(service, request, request_id_of(request.scope))
        if request_id is None and generations.knows(sent):
            request_id = uuid4().hex  # a proxy repeats its x-request-id when it tries again
        origin = service.origin(prefix, request, body.model, request_id, wish_of(body))
        origin, body = await service.admitted(request, origin, body, native_call)
        if body.stream or body.background:
            origin = streams.recorded(origin, Asked(body, "native", bool(body.background)))
        parsed = await parse(request, native_call, body, origin, service.client.tokenizer)
        if body.stream:
            events = streams.follow(
                generations.stream(parsed),
                stream_of(parsed),
                credentials_of(request.headers.items()),
            )
            return _respond(service, generations, stream_of(parsed), events)
        if body.background:
            await generations.accepted(parsed)
            return JsonResponse(_accepted(parsed), _ACCEPTED)
        return JsonResponse(await unless_disconnected(request, generations.whole(parsed)))

    @router.post("/chat/completions", response_class=Response, responses={**answers, **accepted})
    async def create_chat(body: NativeChatBody, request: Request) -> Response:
        """Answer a conversation. `stream` sends events; `background` returns at once."""
        return await generate(body, request, "chatcmpl-")

    @router.post("/completions", response_class=Response, responses={**answers, **accepted})
    async def create_completion(body: NativeCompletionBody, request: Request) -> Response:
        """Continue a text. `stream` sends events; `background` returns at once."""
        return await generate(body, request, "cmpl-")

    @router.post(
        "/batch/completions", response_class=Response, responses=schemas.answers(BatchResponse)
    )
    async def create_batch(body: BatchBody, request: Request) -> Response:
        """Many requests in one call, each with its own result or error."""
        return JsonResponse(
            await unless_disconnected(request, run_batch(service, generations, request, body))
        )


def _add_streams(
    router: APIRouter,
    service: Service,
    generations: Generations,
    streams: Streams,
    schemas: AnswerSchemas,
) -> None:
    @router.get(
        "/stream/{request_id}",
        response_class=Response,
        responses={
            200: {"description": "Events", "content": {"text/event-stream": {}}},
            _NOTHING_MORE: {"description": "The stream has ended, and all of it was read"},
            **schemas.errors(),
        },
    )
    async def read_stream(
        request_id: str,
        request: Request,
        start: int | None = Query(None, alias="from", ge=0, le=2**53),
        last_event_id: str | None = Header(None),
    ) -> Response:
        """Attach to a call that runs or ran. Start at event `from`, or after `Last-Event-ID`."""
        first = _first_wanted(start, last_event_id)
        stream = _stream_id(service, request, request_id)
        events = await streams.attach(
            stream,
            first,
            credentials_of(request.headers.items()),
            is_forwarded=was_forwarded(request.headers),
        )
        if events is None:
            return Response(status_code=_NOTHING_MORE)  # EventSource stops reconnecting
        return _respond(service, generations, stream, events)

    @router.delete(
        "/requests/{request_id}", response_class=Response, responses=schemas.answers(Cancelled)
    )
    async def cancel_request(request_id: str, request: Request) -> Response:
        """End a running request, native or OpenAI, by the id of the request or of its answer.
        Operators may end those of others too."""
        caller = service.caller(request)
        num_cancelled = await service.calls.cancel(request_id, caller.tenant)
        if not num_cancelled and caller.is_operator:
            num_cancelled = await service.calls.cancel(request_id)
        if not num_cancelled and not was_forwarded(request.headers):
            stream = _stream_id(service, request, request_id)
            num_cancelled = await streams.cancel(stream, credentials_of(request.headers.items()))
        if not num_cancelled:
            raise RequestNotFound(f"No request '{request_id}' is running.")
        return JsonResponse(Cancelled(request_id))


def _stream_id(service: Service, request: Request, request_id: str) -> StreamId:
    return StreamId(request_id, service.caller(request).tenant)


def _accepted(parsed: NativeCall) -> Accepted:
    return Accepted(parsed.request_id, f"/api/v1/llm/stream/{parsed.request_id}")


def _respond(
    service: Service,
    generations: Generations,
    stream: StreamId,
    events: AsyncGenerator[Event, None],
) -> EventStreamResponse:
    def error_frame(error: NovaCronError) -> bytes:
        return b"data: %b\n\n" % generations.error_event(stream, error)

    def health_frame() -> bytes:
        return b"data: %b\n\n" % generations.health_event(stream)

    return EventStreamResponse(
        _frames(events),
        error_frame=error_frame,
        keep_alive_s=service.config.keep_alive_interval,
        keep_alive_frame=health_frame,
    )


async def _frames(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """The type is in the data, not in `event:`, so that a browser's onmessage gets them all."""
    async with aclosing(events):
        async for event in events:
            yield b"id: %d\ndata: %b\n\n" % (event.number, event.data)


def _first_wanted(start: int | None, last_event_id: str | None) -> int:
    if start is not None:
        return start
    if last_event_id is None or last_event_id == "":
        return 0
    if not last_event_id.isdecimal() or len(last_event_id) > 15:
        raise InvalidRequest(
            "Last-Event-ID must be the number of the last event that was read.", "Last-Event-ID"
        )
    return int(last_event_id) + 1
