"""Ollama's endpoints: parse, run, answer."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from novacron.errors import InvalidRequest
from novacron.gateway.calls import CallOrigin
from novacron.gateway.dialect import OurFields
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native.dialect_streams import DialectStreams
from novacron.gateway.native.streams import Asked
from novacron.gateway.ollama.embeddings import embed_call, embeddings
from novacron.gateway.ollama.errors import OllamaError
from novacron.gateway.ollama.models import model_facts, model_tags, running_models, served_name
from novacron.gateway.ollama.prompt import as_chat, parse_ollama
from novacron.gateway.ollama.records import (
    OllamaAnswer,
    OllamaEmbedding,
    OllamaEmbeddings,
    OllamaModelFacts,
    OllamaModels,
    OllamaRunningModels,
    OllamaVersion,
)
from novacron.gateway.ollama.replies import NDJSON, OllamaReply, only_loaded
from novacron.gateway.ollama.schema import (
    EmbedBody,
    GenerateBody,
    OldEmbedBody,
    OllamaChatBody,
    ShowBody,
)
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service, parse


def ollama_routes(
    service: Service, streams: DialectStreams, schemas: AnswerSchemas, version: str
) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["Ollama"], route_class=StrictJsonRoute)
    client = service.client
    answer = schemas.answers(OllamaAnswer, streams=NDJSON, error=OllamaError)

    def origin(request: Request, model: str, body: OurFields) -> CallOrigin:
        name = served_name(service.model, model)
        return service.origin("ollama-", request, name, wish=body.wish)

    async def answered(request: Request, reply: OllamaReply, stream: bool | None) -> Response:
        if stream is not False:
            return streams.respond(reply, reply.form)
        return JsonResponse(reply.whole(await service.whole(request, reply.call, reply.observe)))

    @router.post("/chat", response_class=Response, responses=answer)
    async def ollama_chat(body: OllamaChatBody, request: Request) -> Response:
        """Answer a conversation as Ollama does; line by line, unless `stream` is false."""
        came = origin(request, body.model, body)
        if not body.messages:
            service.spec_of(came.variant)  # raises NotReady before it is loaded
            return JsonResponse(only_loaded(came.model, "chat"))
        to_reply = partial(parse_ollama, is_text=False, is_raw=False)
        came, chat = await service.admitted(
            request, came, await parse(request, as_chat, body), to_reply
        )
        if body.stream is not False:
            came = streams.recorded(came, Asked(chat, "openai"))
        reply = await parse(request, to_reply, chat, came, client.tokenizer)
        return await answered(request, OllamaReply(reply, "chat"), body.stream)

    @router.post("/generate", response_class=Response, responses=answer)
    async def ollama_generate(body: GenerateBody, request: Request) -> Response:
        """Answer one prompt as Ollama does; line by line, unless `stream` is false."""
        came = origin(request, body.model, body)
        if not body.prompt:
            service.spec_of(came.variant)  # raises NotReady before it is loaded
            return JsonResponse(only_loaded(came.model, "text"))
        to_reply = partial(parse_ollama, is_text=True, is_raw=bool(body.raw))
        came, chat = await service.admitted(
            request, came, await parse(request, as_chat, body), to_reply
        )
        if body.stream is not False:
            came = streams.recorded(came, Asked(chat, "raw" if body.raw else "text"))
        reply = await parse(request, to_reply, chat, came, client.tokenizer)
        return await answered(request, OllamaReply(reply, "text"), body.stream)

    @router.post(
        "/embed",
        response_class=Response,
        responses=schemas.answers(OllamaEmbeddings, error=OllamaError),
    )
    async def ollama_embed(body: EmbedBody, request: Request) -> Response:
        """A vector of unit length for each text."""
        came = origin(request, body.model, body)
        call = await parse(request, embed_call, body, came, client.tokenizer, client.spec)
        choices = await service.whole(request, call) if call.requests else ()
        return JsonResponse(embeddings(call, choices, body.dimensions))

    @router.post(
        "/embeddings",
        response_class=Response,
        responses=schemas.answers(OllamaEmbedding, error=OllamaError),
    )
    async def ollama_old_embeddings(body: OldEmbedBody, request: Request) -> Response:
        """A vector for one text, in the older form."""
        came = origin(request, body.model, body)
        call = await parse(request, embed_call, body, came, client.tokenizer, client.spec)
        choices = await service.whole(request, call)
        return JsonResponse(OllamaEmbedding(embeddings(call, choices, None).embeddings[0]))

    @router.get(
        "/tags", response_class=Response, responses=schemas.answers(OllamaModels, error=OllamaError)
    )
    async def ollama_tags() -> Response:
        """The names under which the model is served."""
        return JsonResponse(model_tags(service.model))

    @router.get(
        "/ps",
        response_class=Response,
        responses=schemas.answers(OllamaRunningModels, error=OllamaError),
    )
    async def ollama_ps() -> Response:
        """What is loaded now."""
        return JsonResponse(running_models(service.model))

    @router.post(
        "/show",
        response_class=Response,
        responses=schemas.answers(OllamaModelFacts, error=OllamaError),
    )
    async def ollama_show(body: ShowBody) -> Response:
        """Facts about the model: its template, size, context and abilities."""
        name = body.model or body.name
        if not name:
            raise InvalidRequest("model is missing: name the model to show.", param="model")
        return JsonResponse(model_facts(service.model, client, served_name(service.model, name)))

    @router.get(
        "/version",
        response_class=Response,
        responses=schemas.answers(OllamaVersion, error=OllamaError),
    )
    async def ollama_version() -> Response:
        """The version of this software, not of Ollama."""
        return JsonResponse(OllamaVersion(version))

    return router
