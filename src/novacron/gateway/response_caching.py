"""Where calls meet the response cache: answered from it, computed and kept, or passed by.

Sits where calls run, so that every dialect and every stream has it, and knows nothing of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from novacron.accounts.allowed_names import AllowedNames
from novacron.config.privacy import may_be_in
from novacron.config.tenants import TenantPolicies
from novacron.engine.client import EngineClient
from novacron.gateway.cache_ticket import CacheTicket
from novacron.gateway.calls import Call, Generate
from novacron.gateway.semantic_caching import SemanticAnswers, SemanticSettings
from novacron.gateway.served_model import ServedModel
from novacron.records.output import RequestOutput
from novacron.response_cache.answer import CachedAnswer, Recorder
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.identity import (
    Key,
    is_deterministic,
    key_of,
    model_identity,
    tenant_tag,
)
from novacron.response_cache.store import Amount

_MOST_TOKENS: Final = 65536  # of an answer that is kept


class SimilarAnswers(Protocol):
    """Answers to questions of the same meaning. See semantic_caching.py."""

    async def find(self, call: Call, ticket: CacheTicket) -> CachedAnswer | None: ...

    async def keep(self, call: Call, ticket: CacheTicket, key: Key) -> None: ...

    def forget(self, tenant: str | None) -> None: ...


class NoSimilarAnswers:
    """Only what is asked for to the letter."""

    async def find(self, call: Call, ticket: CacheTicket) -> CachedAnswer | None:
        return None

    async def keep(self, call: Call, ticket: CacheTicket, key: Key) -> None:
        pass

    def forget(self, tenant: str | None) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class OpenedCache:
    """The parts of a response cache that stand outside the gateway. Made by cli/ from settings."""

    answers: ResponseCache
    store_name: str  # for people: without passwords
    semantic: SemanticSettings | None = None
    region: str = ""


class CachedCalls:
    """A cache before `compute`, which is asked for what is not found."""

    def __init__(
        self,
        client: EngineClient,
        model: ServedModel,
        opened: OpenedCache,
        compute: Generate,
        policies: TenantPolicies | None = None,
        allowed: AllowedNames | None = None,
    ) -> None:
        """`allowed` tells which models a caller may have answers of."""
        self._policies = policies or TenantPolicies()
        self._allowed = allowed
        self._region = opened.region
        self.answers = opened.answers
        self.store_name = opened.store_name
        self._compute = compute
        self._model = model
        self._cache = opened.answers
        self._similar: SimilarAnswers = (
            NoSimilarAnswers()
            if opened.semantic is None
            else SemanticAnswers(client, model, opened.answers, opened.semantic)
        )

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        """Drop the answers of a tenant, by its name, or all. Raises StoreFailed."""
        tag = None if tenant is None else tenant_tag(tenant)
        if not dry_run:
            self._similar.forget(tag)
        return await self._cache.flush(tag, dry_run=dry_run)

    def generate(self, call: Call) -> AsyncGenerator[RequestOutput, None]:
        ticket = call.origin.cache
        if ticket is None:
            return self._compute(call)
        spec = self._model.variant(call.origin.variant).spec
        may_be_kept = self._apply_policy(call, ticket)
        if spec is None or not may_be_kept or not _is_cacheable(call, ticket):
            ticket.outcome = "bypass"
            self._cache.counts.events["bypass"] += 1
            return self._compute(call)
        key = key_of(call.origin.caller.tenant, model_identity(spec), call.requests)
        recorder = Recorder(call.requests, spec.max_model_len, _MOST_TOKENS)
        return self._from_cache(call, ticket, key, recorder)

    def _apply_policy(self, call: Call, ticket: CacheTicket) -> bool:
        """Whether answers of this tenant may be kept, and where the cache is."""
        policy = self._policies.of(call.origin.caller.tenant)
        ticket.most_age_s = policy.retain_s.get("responses", inf)
        if ticket.wish == "semantic" and policy.response_cache != "semantic":
            ticket.wish = "on"
        is_there = may_be_in(self._region, policy.regions)
        return policy.response_cache != "off" and is_there

    async def _from_cache(
        self, call: Call, ticket: CacheTicket, key: Key, recorder: Recorder
    ) -> AsyncGenerator[RequestOutput, None]:
        found = None if ticket.wish == "refresh" else await self._find(call, ticket, key)
        if found is not None:
            if self._allowed is not None:
                variant = self._model.variant(call.origin.variant).name
                await self._allowed.check(call.origin.account, self._model.name, variant)
            for output in found.replay(call.requests):
                yield output
            return
        ticket.outcome = "miss"
        self._cache.counts.events["miss"] += 1
        async with aclosing(self._compute(call)) as outputs:
            async for output in outputs:
                recorder.add(output)
                yield output
        answer = recorder.answer(self._cache.now_s)
        if answer is None:
            self._cache.counts.events["not_stored"] += 1
            return
        await self._cache.keep(key, answer, ticket.most_age_s)
        await self._similar.keep(call, ticket, key)

    async def _find(self, call: Call, ticket: CacheTicket, key: Key) -> CachedAnswer | None:
        found = await self._cache.find(key, ticket.most_age_s)
        ticket.kind = "exact"
        if found is None:
            found = await self._similar.find(call, ticket)
            ticket.kind = "semantic" if found else ""
        if found is not None:
            ticket.outcome = "hit"
            ticket.age_s = max(0.0, self._cache.now_s - found.created_s)
            self._cache.count_hit(found, semantic=ticket.kind == "semantic")
        return found


def _is_cacheable(call: Call, ticket: CacheTicket) -> bool:
    if ticket.wish in ("", "off"):
        return ticket.wish == "" and is_deterministic(call.requests)
    return True
