"""What clients send to rerank (as to Jina, Cohere and vLLM) and to score (as to vLLM)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from novacron.gateway.openai.schema import Body, Int32

MAX_PAIRS = 1024  # of one call

Method = Literal["embedding", "likelihood"]


class ScoringBody(Body):
    """`method` is ours: what the score is, see scores.py."""

    model: str | None = None
    method: Method | None = None
    priority: Int32 | None = None
    cache_salt: str | None = None


class TextDocument(Body):
    text: str


class RerankBody(ScoringBody):
    """POST /v1/rerank."""

    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str | TextDocument], Field(min_length=1, max_length=MAX_PAIRS)]
    top_n: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    return_documents: bool | None = None


Texts = str | Annotated[list[str], Field(min_length=1, max_length=MAX_PAIRS)]


class ScoreBody(ScoringBody):
    """POST /v1/score. One text against each of several, or two lists pair by pair."""

    text_1: Texts
    text_2: Texts
