"""Many native requests in one call, each with its own result or error."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from pydantic import ValidationError
from starlette.requests import Request

from novacron.errors import InvalidRequest, NovaCronError
from novacron.gateway.error_mapping import error_detail
from novacron.gateway.native.events import BatchResponse, BatchResult, InferenceResponse
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.replies import NativeBody, native_call
from novacron.gateway.native.schema import BatchBody, NativeChatBody, NativeCompletionBody
from novacron.gateway.openai.sampling import wish_of
from novacron.gateway.openai.schema import JsonObject
from novacron.gateway.service import Service, parse
from novacron.gateway.validation import describe_validation

_NUM_AT_ONCE = 64  # of one batch, so that it cannot fill the queue by itself


async def run_batch(
    service: Service, generations: Generations, request: Request, body: BatchBody
) -> BatchResponse:
    """Never raises for what one of the requests does."""
    places = asyncio.Semaphore(_NUM_AT_ONCE)
    batch_id = f"batch-{uuid4().hex}"

    async def run_one(index: int, fields: JsonObject) -> BatchResult:
        sent_id = fields.get("request_id")
        request_id = sent_id if isinstance(sent_id, str) else f"{batch_id}-{index}"
        async with places:
            try:
                native_body = parse_native_body({**body.defaults, **fields})
                response = await _run(service, generations, request, native_body, request_id)
            except NovaCronError as error:
                return BatchResult(
                    index=index,
                    request_id=request_id,
                    status="failed",
                    error=error_detail(error),
                )
        return BatchResult(
            index=index, request_id=request_id, status="completed", response=response
        )

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_one(i, one)) for i, one in enumerate(body.requests)]
    results = tuple(task.result() for task in tasks)
    num_completed = sum(result.status == "completed" for result in results)
    return BatchResponse(
        batch_id=batch_id,
        num_completed=num_completed,
        num_failed=len(results) - num_completed,
        results=results,
    )


def parse_native_body(fields: JsonObject) -> NativeBody:
    """A chat if there are `messages`, else a completion. Raises InvalidRequest."""
    kind = NativeChatBody if "messages" in fields else NativeCompletionBody
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        message, param = describe_validation(error.errors())
        raise InvalidRequest(message, param) from error


async def _run(
    service: Service,
    generations: Generations,
    request: Request,
    body: NativeBody,
    request_id: str,
) -> InferenceResponse:
    if body.stream or body.background:
        raise InvalidRequest("A request of a batch can neither stream nor run in the background.")
    prefix = "chatcmpl-" if isinstance(body, NativeChatBody) else "cmpl-"
    origin = service.origin(prefix, request, body.model, request_id, wish_of(body))
    origin, body = await service.admitted(request, origin, body, native_call)
    parsed = await parse(request, native_call, body, origin, service.client.tokenizer)
    return await generations.whole(parsed)
