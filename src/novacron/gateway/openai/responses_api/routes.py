"""The endpoints of OpenAI's Responses API: parse, run, answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from novacron.engine.tokenization import Tokenizer
from novacron.gateway.calls import CallOrigin
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native.dialect_streams import DialectStreams
from novacron.gateway.native.streams import Asked
from novacron.gateway.openai.chat import ChatReply, parse_chat
from novacron.gateway.openai.responses_api.endings import Endings
from novacron.gateway.openai.responses_api.input_items import ItemList, Order, page_of
from novacron.gateway.openai.responses_api.prompt import (
    Message,
    as_chat,
    messages_of,
    refuse_what_is_not_here,
)
from novacron.gateway.openai.responses_api.records import (
    DeletedResponse,
    OutputMessage,
    ResponseInputTokens,
    ResponseObject,
)
from novacron.gateway.openai.responses_api.replies import ResponsesReply
from novacron.gateway.openai.responses_api.schema import InputBody, ResponsesBody
from novacron.gateway.openai.responses_api.store import ResponseStore
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service, parse

_KEPT_BYTES = 32 * 2**20
_KEPT_S = 3600.0

PageSize = Annotated[int, Query(ge=1, le=100)]


def responses_routes(
    service: Service, streams: DialectStreams, schemas: AnswerSchemas
) -> APIRouter:
    router = APIRouter(prefix="/v1/responses", tags=["OpenAI"], route_class=StrictJsonRoute)
    store = ResponseStore(_KEPT_BYTES, _KEPT_S, time.monotonic)
    endings = Endings()

    def conversation(body: InputBody, origin: CallOrigin) -> list[Message]:
        """The messages of the response that is gone on with, and the new ones."""
        refuse_what_is_not_here(body)
        earlier: Sequence[Message] = ()
        if body.previous_response_id is not None:
            earlier = store.get(origin.caller.tenant, body.previous_response_id).messages
        return [*earlier, *messages_of(body)]

    @router.post(
        "", response_class=Response, responses=schemas.answers(ResponseObject, streams=True)
    )
    async def create_response(body: ResponsesBody, request: Request) -> Response:
        """Answer items, or a text, by a response; with `stream`, as numbered events."""
        origin = service.origin("resp_", request, body.model, wish=body.wish)
        messages = conversation(body, origin)
        chat_body = await parse(request, as_chat, body, messages)
        origin, chat_body = await service.admitted(request, origin, chat_body, parse_chat)
        if body.stream:
            origin = streams.recorded(origin, Asked(chat_body, "openai"))
        chat = await parse(request, parse_chat, chat_body, origin, service.client.tokenizer)

        def keep(response: ResponseObject) -> None:
            endings.tell(origin.caller.tenant, response)
            if response.store:
                store.put(origin.caller.tenant, response, [*messages, _as_message(response)])

        reply = ResponsesReply(chat, body, keep)
        if body.stream:
            return streams.respond(reply, reply.form)
        return JsonResponse(reply.whole(await service.whole(request, reply.call)))

    @router.post(
        "/input_tokens",
        response_class=Response,
        responses=schemas.answers(ResponseInputTokens),
    )
    async def count_input_tokens(body: InputBody, request: Request) -> Response:
        """How many tokens the prompt of such a response has. Nothing is computed."""
        origin = service.origin("resp_", request, body.model, wish=body.wish)
        messages = conversation(body, origin)
        chat = await parse(request, _parse, body, messages, origin, service.client.tokenizer)
        return JsonResponse(ResponseInputTokens(chat.call.num_prompt_tokens))

    @router.get(
        "/{response_id}", response_class=Response, responses=schemas.answers(ResponseObject)
    )
    async def retrieve_response(response_id: str, request: Request) -> Response:
        """A response that is still kept."""
        return JsonResponse(store.get(service.caller(request).tenant, response_id).response)

    @router.get(
        "/{response_id}/input_items", response_class=Response, responses=schemas.answers(ItemList)
    )
    async def list_input_items(
        response_id: str,
        request: Request,
        order: Order = "desc",
        after: str | None = None,
        limit: PageSize = 20,
    ) -> Response:
        """What a response that is still kept was made of, with the turns before; not its
        instructions."""
        *asked, _ = store.get(service.caller(request).tenant, response_id).messages
        return JsonResponse(page_of(response_id, asked, order=order, after=after, limit=limit))

    @router.post(
        "/{response_id}/cancel", response_class=Response, responses=schemas.answers(ResponseObject)
    )
    async def cancel_response(response_id: str, request: Request) -> Response:
        """End a response that runs; one that has ended stays as it is. Either way, as it is now."""
        tenant = service.caller(request).tenant
        cancel = partial(service.calls.cancel, response_id, tenant)
        ended = await endings.after(cancel, tenant, response_id)
        return JsonResponse(ended or store.get(tenant, response_id).response)

    @router.delete(
        "/{response_id}", response_class=Response, responses=schemas.answers(DeletedResponse)
    )
    async def delete_response(response_id: str, request: Request) -> Response:
        """Keep a response no longer."""
        store.delete(service.caller(request).tenant, response_id)
        return JsonResponse(DeletedResponse(response_id))

    return router


def _parse(
    body: InputBody, messages: Sequence[Message], origin: CallOrigin, tokenizer: Tokenizer
) -> ChatReply:
    return parse_chat(as_chat(body, messages), origin, tokenizer)


def _as_message(response: ResponseObject) -> Message:
    """The answer as the message that the next turn shows to the model."""
    texts, calls = [], []
    for item in response.output:
        if isinstance(item, OutputMessage):
            texts += [part.text for part in item.content]
        else:
            function = {"name": item.name, "arguments": item.arguments}
            calls.append({"id": item.call_id, "function": function})
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    return message | ({"tool_calls": calls} if calls else {})
