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
from novacron.gateway.native.streams import Asked, Form
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
from novacron.gateway.ollama.replies import NDJSON, AnswerKind, OllamaReply, only_loaded
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
    _add_generation(router, service, streams, schemas)
    _add_embedding(router, service, schemas)
    _add_models(router, service, schemas)

    @router.get(
        "/version",
        response_class=Response,
        responses=schemas.answers(OllamaVersion, error=OllamaError),
    )
    async def ollama_version() -> Response:
        """The version of this software, not of Ollama."""
        return JsonResponse(OllamaVersion(version))

    return router


def _origin(service: Service, request: Request, model: str, body: OurFields) -> CallOrigin:
    name = served_name(service.model, model)
    return service.origin("ollama-", request, name, wish=body.wish)


def _add_generation(
    router: APIRouter, service: Service, streams: DialectStreams, schemas: AnswerSchemas
) -> None:
    answer = schemas.answers(OllamaAnswer, streams=NDJSON, error=OllamaError)

    async def answered(
        body: OllamaChatBody | GenerateBody, request: Request, form: Form, *, asks: bool
    ) -> Response:
        """One that asks nothing is told that the model is loaded, as Ollama loads it then."""
        kind: AnswerKind = "chat" if form == "openai" else "text"
        origin = _origin(service, request, body.model, body)
        if not asks:
            service.spec_of(origin.variant)  # raises NotReady before it is loaded
            return JsonResponse(only_loaded(origin.model, kind))
        to_chat = partial(parse_ollama, is_text=kind == "text", is_raw=form == "raw")
        chat = await parse(request, as_chat, body)
        origin, chat = await service.admitted(request, origin, chat, to_chat)
        if body.stream is not False:
            origin = streams.recorded(origin, Asked(chat, form))
        parsed = await parse(request, to_chat, chat, origin, service.client.tokenizer)
        reply = OllamaReply(parsed, kind)
        if body.stream is not False:
            return streams.respond(reply, reply.form)
        return JsonResponse(reply.whole(await service.whole(request, reply.call, reply.observe)))

    @router.post("/chat", response_class=Response, responses=answer)
    async def ollama_chat(body: OllamaChatBody, request: Request) -> Response:
        """Answer a conversation as Ollama does; line by line, unless `stream` is false."""
        return await answered(body, request, "openai", asks=bool(body.messages))

    @router.post("/generate", response_class=Response, responses=answer)
    async def ollama_generate(body: GenerateBody, request: Request) -> Response:
        """Answer one prompt as Ollama does; line by line, unless `stream` is false."""
        form: Form = "raw" if body.raw else "text"
        return await answered(body, request, form, asks=bool(body.prompt))


def _add_embedding(router: APIRouter, service: Service, schemas: AnswerSchemas) -> None:
    client = service.client

    @router.post(
        "/embed",
        response_class=Response,
        responses=schemas.answers(OllamaEmbeddings, error=OllamaError),
    )
    async def ollama_embed(body: EmbedBody, request: Request) -> Response:
        """A vector of unit length for each text."""
        origin = _origin(service, request, body.model, body)
        call = await parse(request, embed_call, body, origin, client.tokenizer, client.spec)
        choices = await service.whole(request, call) if call.requests else ()
        return JsonResponse(embeddings(call, choices, body.dimensions))

    @router.post(
        "/embeddings",
        response_class=Response,
        responses=schemas.answers(OllamaEmbedding, error=OllamaError),
    )
    async def ollama_old_embeddings(body: OldEmbedBody, request: Request) -> Response:
        """A vector for one text, in the older form."""
        origin = _origin(service, request, body.model, body)
        call = await parse(request, embed_call, body, origin, client.tokenizer, client.spec)
        choices = await service.whole(request, call)
        return JsonResponse(OllamaEmbedding(embeddings(call, choices, None).embeddings[0]))


def _add_models(router: APIRouter, service: Service, schemas: AnswerSchemas) -> None:
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
        facts = model_facts(service.model, service.client, served_name(service.model, name))
        return JsonResponse(facts)
