"""Rerank and score: parse, run, answer."""

from __future__ import annotations

from fastapi import APIRouter
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from novacron.errors import InvalidRequest
from novacron.gateway.calls import CallOrigin
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.scoring.records import (
    PairScore,
    RankedDocument,
    RankedResult,
    Ranking,
    ScoreList,
    ScoringUsage,
)
from novacron.gateway.scoring.schema import MAX_PAIRS, Method, RerankBody, ScoreBody, ScoringBody
from novacron.gateway.scoring.scores import Pair, scoring
from novacron.gateway.service import Service, parse


def scoring_routes(service: Service, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(tags=["Scoring"], route_class=StrictJsonRoute)

    async def scores_of(
        body: ScoringBody, pairs: list[Pair], origin: CallOrigin, request: Request, method: Method
    ) -> tuple[list[float], ScoringUsage]:
        scored = await parse(
            request, scoring, body, pairs, origin, service.client.tokenizer, method
        )
        choices = await service.whole(request, scored.call)
        tokens = scored.call.num_prompt_tokens
        return scored.scores(choices), ScoringUsage(tokens, tokens)

    async def rank(body: RerankBody, request: Request) -> Response:
        """Order documents by how near they are to a query, as Jina's, Cohere's and vLLM's APIs."""
        texts = [doc if isinstance(doc, str) else doc.text for doc in body.documents]
        origin = service.origin("rerank-", request, body.model)
        pairs = [Pair(body.query, text) for text in texts]
        scores, usage = await scores_of(body, pairs, origin, request, "likelihood")
        best = sorted(range(len(texts)), key=lambda index: -scores[index])[: body.top_n]
        results = tuple(
            RankedResult(
                index=index,
                relevance_score=scores[index],
                document=UNSET if body.return_documents is False else RankedDocument(texts[index]),
            )
            for index in best
        )
        return JsonResponse(
            Ranking(id=origin.call_id, model=origin.model, results=results, usage=usage)
        )

    async def score(body: ScoreBody, request: Request) -> Response:
        """How near texts are to each other, pair by pair, as vLLM's API."""
        origin = service.origin("score-", request, body.model)
        scores, usage = await scores_of(body, _pairs(body), origin, request, "embedding")
        return JsonResponse(
            ScoreList(
                id=origin.call_id,
                created=origin.created,
                model=origin.model,
                data=tuple(PairScore(index=i, score=value) for i, value in enumerate(scores)),
                usage=usage,
            )
        )

    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        router.post(path, response_class=Response, responses=schemas.answers(Ranking))(rank)
    for path in ("/v1/score", "/score"):
        router.post(path, response_class=Response, responses=schemas.answers(ScoreList))(score)
    return router


def _pairs(body: ScoreBody) -> list[Pair]:
    """Raises InvalidRequest for two lists of different lengths."""
    first, second = (
        [texts] if isinstance(texts, str) else texts for texts in (body.text_1, body.text_2)
    )
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise InvalidRequest(
            f"text_1 has {len(first)} texts and text_2 {len(second)}. Give one text and several, "
            f"or two lists of the same length, at most {MAX_PAIRS}.",
            param="text_2",
        )
    return [Pair(one, other) for one, other in zip(first, second, strict=True)]
