"""What rerank and score answer."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class ScoringUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class RankedDocument(Struct, frozen=True):
    text: str


class RankedResult(Struct, frozen=True, kw_only=True):
    """`index` is the place of the document in what was sent."""

    index: int
    relevance_score: float
    document: RankedDocument | UnsetType = UNSET


class Ranking(Struct, frozen=True, kw_only=True):
    """Best first; equals in the order they were sent in."""

    id: str
    model: str
    results: tuple[RankedResult, ...]
    usage: ScoringUsage


class PairScore(Struct, frozen=True, kw_only=True):
    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreList(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: tuple[PairScore, ...]
    usage: ScoringUsage
