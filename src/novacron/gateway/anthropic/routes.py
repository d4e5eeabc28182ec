"""Anthropic's endpoints: parse, run, answer."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from novacron.engine.tokenization import Tokenizer
from novacron.gateway.anthropic.errors import AnthropicError
from novacron.gateway.anthropic.prompt import as_chat
from novacron.gateway.anthropic.records import AnthropicMessage, AnthropicTokenCount
from novacron.gateway.anthropic.replies import ANTHROPIC_STREAM, MessageReply, parse_messages
from novacron.gateway.anthropic.schema import MessagesBody, PromptBody
from novacron.gateway.calls import CallOrigin
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.middleware import request_id_of
from novacron.gateway.native.dialect_streams import DialectStreams
from novacron.gateway.native.streams import Asked
from novacron.gateway.openai.schema import ChatBody
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service, parse


def anthropic_routes(
    service: Service, streams: DialectStreams, schemas: AnswerSchemas
) -> APIRouter:
    router = APIRouter(prefix="/v1/messages", tags=["Anthropic"], route_class=StrictJsonRoute)

    def model_of(origin: CallOrigin) -> tuple[Tokenizer, int]:
        return service.client.tokenizer, service.spec_of(origin.variant).max_model_len

    def parse_admitted(chat: ChatBody, origin: CallOrigin, tokenizer: Tokenizer) -> MessageReply:
        return parse_messages(chat, origin, *model_of(origin))

    @router.post(
        "",
        response_class=Response,
        responses=schemas.answers(AnthropicMessage, streams=True, error=AnthropicError),
    )
    async def create_message(body: MessagesBody, request: Request) -> Response:
        """Answer a conversation as Anthropic's API does; with `stream`, as server-sent events."""
        origin = service.origin("msg_", request, body.model, wish=body.wish)
        chat = await parse(request, as_chat, body)
        origin, chat = await service.admitted(request, origin, chat, parse_admitted)
        if body.stream:
            origin = streams.recorded(origin, Asked(chat, "messages"))
        reply = await parse(request, parse_messages, chat, origin, *model_of(origin))
        if body.stream:
            return streams.respond(reply, ANTHROPIC_STREAM)
        answer = reply.whole(await service.whole(request, reply.call))
        return JsonResponse(answer, headers={"request-id": request_id_of(request.scope)})

    @router.post(
        "/count_tokens",
        response_class=Response,
        responses=schemas.answers(AnthropicTokenCount, error=AnthropicError),
    )
    async def count_message_tokens(body: PromptBody, request: Request) -> Response:
        """How many tokens the prompt of such a conversation has. Nothing is computed."""
        origin = service.origin("msg_", request, body.model, wish=body.wish)
        chat = await parse(request, as_chat, body)
        reply = await parse(request, parse_messages, chat, origin, *model_of(origin))
        return JsonResponse(AnthropicTokenCount(reply.call.num_prompt_tokens))

    return router
