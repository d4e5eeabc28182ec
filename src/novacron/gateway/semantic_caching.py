"""Answers to questions of the same meaning: found by vectors, then checked word by word.

Only for requests that ask for it, within their tenant and among chats that are equal in all but
the last question. A vector finds what is near; response_cache/wording.py decides whether it is the
same question. What is found is an answer of the exact cache, with its time of life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import uuid4

import blake3
import msgspec

from novacron.engine.client import EngineClient
from novacron.errors import NovaCronError
from novacron.gateway.cache_ticket import CacheTicket
from novacron.gateway.calls import Call
from novacron.gateway.question import Question
from novacron.gateway.served_model import ServedModel
from novacron.records.request import Request, SamplingParams
from novacron.response_cache.answer import CachedAnswer
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.identity import Key, model_identity, tenant_tag
from novacron.response_cache.wording import same_question

_MOST_TRIED: Final = 16  # of the nearest questions
_LONGEST: Final = 2000  # characters of a question; longer ones differ somewhere
_DEADLINE_S: Final = 0.5  # for a vector: an engine that is busy costs hits, not time

Embed = Callable[[Call, str], Awaitable[Sequence[float] | None]]


class Near(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def key(self) -> Key: ...


class Index(Protocol):
    """response_cache.vector_index.VectorIndex, which needs numpy."""

    def search(
        self, partition: tuple[str, bytes], vector: Sequence[float], threshold: float, most: int
    ) -> Sequence[Near]: ...

    def add(
        self, partition: tuple[str, bytes], vector: Sequence[float], text: str, key: Key
    ) -> None: ...

    def forget(self, tenant: str | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SemanticSettings:
    """`threshold` is the least cosine, `by_path` that of some routes. `embed` makes vectors without
    the engine; None: the engine does."""

    index: Index
    threshold: float
    by_path: Mapping[str, float] = field(default_factory=dict)
    embed: Callable[[str], Sequence[float]] | None = None


class SemanticAnswers:
    """SimilarAnswers (response_caching.py), by vectors and words."""

    def __init__(
        self,
        client: EngineClient,
        model: ServedModel,
        cache: ResponseCache,
        settings: SemanticSettings,
    ) -> None:
        self._client = client
        self._model = model
        self._cache = cache
        self._settings = settings

    async def find(self, call: Call, ticket: CacheTicket) -> CachedAnswer | None:
        question = _question_of(call, ticket)
        if question is None:
            return None
        ticket.vector = await self._vector(call, question.text)
        if ticket.vector is None:
            return None
        threshold = self._settings.by_path.get(ticket.path, self._settings.threshold)
        partition = self._partition(call, question)
        near = self._settings.index.search(partition, ticket.vector, threshold, _MOST_TRIED)
        for one in near:
            if same_question(question.text, one.text):
                answer = await self._cache.find(one.key, ticket.most_age_s)
                if answer is not None:
                    return answer
        return None

    async def keep(self, call: Call, ticket: CacheTicket, key: Key) -> None:
        """Only of requests that asked for it: others have not agreed to answer for their like."""
        question = _question_of(call, ticket)
        if question is None:
            return
        vector = ticket.vector or await self._vector(call, question.text)
        if vector is not None:
            self._settings.index.add(self._partition(call, question), vector, question.text, key)

    def forget(self, tenant: str | None) -> None:
        self._settings.index.forget(tenant)

    def _partition(self, call: Call, question: Question) -> tuple[str, bytes]:
        spec = self._model.variant(call.origin.variant).spec or self._client.spec
        identity = (model_identity(spec), call.requests[0].cache_salt, question.around)
        digest = blake3.blake3(msgspec.msgpack.encode(identity)).digest()
        return tenant_tag(call.origin.caller.tenant), digest

    async def _vector(self, call: Call, text: str) -> Sequence[float] | None:
        if self._settings.embed is not None:
            return self._settings.embed(text)
        try:
            return await asyncio.wait_for(self._embed_on_engine(call, text), _DEADLINE_S)
        except (NovaCronError, TimeoutError):
            return None

    async def _embed_on_engine(self, call: Call, text: str) -> Sequence[float] | None:
        like = call.requests[0]
        request = Request(
            request_id=uuid4().hex,
            prompt_token_ids=tuple(self._client.tokenizer.encode(text)),
            sampling=SamplingParams(max_tokens=1),
            arrival_time_s=like.arrival_time_s,
            priority=like.priority,
            tenant=like.tenant,
            weight=like.weight,
            cache_salt=like.cache_salt,
            cache_scope=like.cache_scope,
            variant=like.variant,
            pooling="mean",
        )
        vector: Sequence[float] | None = None
        async with aclosing(self._client.generate((request,))) as outputs:
            async for output in outputs:
                vector = output.embedding or vector
        return vector


def _question_of(call: Call, ticket: CacheTicket) -> Question | None:
    if ticket.wish != "semantic" or len(call.requests) != 1:
        return None
    question = call.question()
    return question if question and len(question.text) <= _LONGEST else None
