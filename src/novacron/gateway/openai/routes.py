"""The OpenAI endpoints: parse, run, answer."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native.dialect_streams import DialectStreams
from novacron.gateway.native.streams import Asked
from novacron.gateway.openai import chat, completions, embeddings, models
from novacron.gateway.openai.responses import (
    ChatCompletion,
    Completion,
    EmbeddingList,
    ModelCard,
    ModelList,
)
from novacron.gateway.openai.sampling import wish_of
from novacron.gateway.openai.schema import ChatBody, CompletionBody, EmbeddingBody
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service, parse


def openai_routes(service: Service, streams: DialectStreams, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictJsonRoute)
    client = service.client

    @router.post(
        "/chat/completions",
        response_class=Response,
        responses=schemas.answers(ChatCompletion, streams=True),
    )
    async def create_chat_completion(body: ChatBody, request: Request) -> Response:
        """Answer a conversation; with `stream`, as server-sent events."""
        origin = service.origin("chatcmpl-", request, body.model, wish=wish_of(body))
        origin, body = await service.admitted(request, origin, body, chat.parse_chat)
        if body.stream:
            origin = streams.recorded(origin, Asked(body, "openai"))
        reply = await parse(request, chat.parse_chat, body, origin, client.tokenizer)
        if body.stream:
            return streams.respond(reply)
        return JsonResponse(reply.whole(await service.whole(request, reply.call)))

    @router.post(
        "/completions",
        response_class=Response,
        responses=schemas.answers(Completion, streams=True),
    )
    async def create_completion(body: CompletionBody, request: Request) -> Response:
        """Continue a text, or several; with `stream`, as server-sent events."""
        origin = service.origin("cmpl-", request, body.model, wish=wish_of(body))
        origin, body = await service.admitted(request, origin, body, completions.parse_completion)
        if body.stream:
            origin = streams.recorded(origin, Asked(body, "openai"))
        reply = await parse(request, completions.parse_completion, body, origin, client.tokenizer)
        if body.stream:
            return streams.respond(reply)
        return JsonResponse(reply.whole(await service.whole(request, reply.call)))

    @router.post("/embeddings", response_class=Response, responses=schemas.answers(EmbeddingList))
    async def create_embedding(body: EmbeddingBody, request: Request) -> Response:
        """A vector of unit length for each text: the model's pooled hidden states."""
        origin = service.origin("embd-", request, body.model)
        to_call = partial(embeddings.embedding_call, hidden_size=client.spec.hidden_size)
        origin, body = await service.admitted(request, origin, body, to_call)
        call = await parse(request, to_call, body, origin, client.tokenizer)
        choices = await service.whole(request, call)
        return JsonResponse(embeddings.embedding_list(body, call, choices))

    @router.get("/models", response_class=Response, responses=schemas.answers(ModelList))
    async def list_models() -> Response:
        """The names under which the model is served, and its variants where there are several."""
        return JsonResponse(models.model_list(service.model))

    @router.get(
        "/models/{model_id:path}", response_class=Response, responses=schemas.answers(ModelCard)
    )
    async def retrieve_model(model_id: str) -> Response:
        """One of the names."""
        return JsonResponse(models.model_card(service.model, model_id))

    return router
