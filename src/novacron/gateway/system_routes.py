"""Endpoints for those who run the server, and for tools: probes, metrics, tokens."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from novacron.engine.client import EngineState
from novacron.errors import InvalidRequest
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.openai.chat import chat_prompt
from novacron.gateway.openai.responses import Detokenized, Tokenized
from novacron.gateway.openai.schema import DetokenizeBody, TokenizeBody
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.probes import Health, Readiness, Version
from novacron.gateway.service import Service, parse
from novacron.observability.prometheus import prometheus_text

_UNAVAILABLE = 503
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def system_routes(service: Service, schemas: AnswerSchemas, version: str) -> APIRouter:
    router = APIRouter(tags=["System"], route_class=StrictJsonRoute)
    client = service.client

    @router.get("/health", response_class=Response, responses=schemas.probe(Health))
    async def health() -> Response:
        """Whether the server can work, now or after loading: 503 only if it never will again."""
        dead = client.state is EngineState.DEAD
        body = Health("unhealthy" if dead else "healthy", client.state.value, service.model.name)
        return JsonResponse(body, _UNAVAILABLE if dead else 200)

    @router.get("/ready", response_class=Response, responses=schemas.probe(Readiness))
    async def ready() -> Response:
        """Whether requests are accepted now."""
        is_ready = client.state is EngineState.READY
        phase, progress = client.loading_progress
        body = Readiness("ready" if is_ready else "not_ready", client.state.value, phase, progress)
        if is_ready:
            return JsonResponse(body)
        return JsonResponse(body, _UNAVAILABLE, {"retry-after": "1"})

    @router.get("/version", response_class=Response, responses=schemas.answers(Version))
    async def tell_version() -> Response:
        """The version of this software."""
        return JsonResponse(Version(version))

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus text", "content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """All metrics, for Prometheus."""
        text = prometheus_text(service.metrics, service.engine_snapshot(), service.model.name)
        return Response(text, media_type=_PROMETHEUS)

    @router.post("/tokenize", response_class=Response, responses=schemas.answers(Tokenized))
    async def tokenize(body: TokenizeBody, request: Request) -> Response:
        """Token ids of a text or of a conversation, as vLLM answers."""
        service.model.resolve(body.model)
        max_model_len = client.spec.max_model_len
        return JsonResponse(await parse(request, _tokenized, body, service, max_model_len))

    @router.post("/detokenize", response_class=Response, responses=schemas.answers(Detokenized))
    async def detokenize(body: DetokenizeBody, request: Request) -> Response:
        """The text of token ids."""
        service.model.resolve(body.model)
        text = await parse(request, client.tokenizer.decode, body.tokens, skip_special_tokens=False)
        return JsonResponse(Detokenized(text))

    return router


def _tokenized(body: TokenizeBody, service: Service, max_model_len: int) -> Tokenized:
    tokenizer = service.client.tokenizer
    match body.prompt, body.messages:
        case (str(prompt), None):
            token_ids = tokenizer.encode(
                prompt,
                add_special_tokens=body.add_special_tokens is not False,
                parse_special=body.parse_special is not False,
            )
        case (None, list()):
            tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()] or None
            token_ids = chat_prompt(body, body.messages, tokenizer, tools)
        case _:
            raise InvalidRequest("Give either prompt or messages.", param="prompt")
    texts = tuple(map(tokenizer.token_text, token_ids)) if body.return_token_strs else None
    return Tokenized(len(token_ids), max_model_len, tuple(token_ids), texts)
