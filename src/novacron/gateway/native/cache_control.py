"""What callers do with the KV cache itself: pin prefixes, warm them, list and clear.

A pin is put down before its prefix is computed, so that it is refused before it costs anything, and
so that its blocks are kept from the moment a tier has them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

import blake3
from starlette.requests import HTTPConnection, Request

from novacron.engine.client import EngineState
from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest, PinNotFound
from novacron.gateway.cache_scope import CacheScope, Caller, owner_tag, scope_of
from novacron.gateway.calls import Call, CallOrigin
from novacron.gateway.native.cache_schema import (
    Cleared,
    PinBody,
    PinResult,
    PinsView,
    PinView,
    PrefixBody,
    UnpinBody,
    Unpinned,
    WarmBody,
    WarmResult,
)
from novacron.gateway.openai.completions import prompt_token_ids
from novacron.gateway.openai.messages import plain_messages
from novacron.gateway.service import Service, parse
from novacron.records.cache_orders import (
    ClearCache,
    ClearedCache,
    ListPins,
    Pin,
    PinInfo,
    PinList,
    Unpin,
)
from novacron.records.request import Request as EngineRequest
from novacron.records.request import SamplingParams

_WARM_PRIORITY = 1_000_000  # after everybody who waits for an answer


class CacheControl:
    """Of one service. Raises NovaCronError for what cannot be done."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def pin(self, request: Request, body: PinBody) -> PinResult:
        origin, scope, token_ids = await self._prefix(request, body, "pin-")
        is_public = body.cache_scope == "public"
        if is_public:
            origin.caller.require_operator("A public prefix")
        name = body.name or _name_of(token_ids)
        expires_s = None if body.ttl is None else time.time() + body.ttl
        order = Pin(name, tuple(token_ids), scope.salt, scope.tag, is_public, expires_s)
        answer = await self._service.client.ask(order, origin.variant)
        warmed = None
        if body.warm is not False:
            warmed = await self._warm(request, origin, scope, token_ids)
            answer = await self._service.client.ask(ListPins(scope.tag), origin.variant)
        assert isinstance(answer, PinList)
        views = [
            _view(pin, origin.variant, answer)
            for pin in answer.pins
            if (pin.name, pin.is_public) == (name, is_public)
        ]
        if not views:  # its ttl is over, or somebody has unpinned it
            raise PinNotFound(f"The pin '{name}' has ended while its prefix was computed.")
        return PinResult(pin=views[-1], warmed=warmed)

    async def warm(self, request: Request, body: WarmBody) -> WarmResult:
        origin, scope, token_ids = await self._prefix(request, body, "warm-")
        return await self._warm(request, origin, scope, token_ids)

    async def unpin(self, connection: HTTPConnection, body: UnpinBody) -> Unpinned:
        """In all variants that have such a pin."""
        caller = self._service.caller(connection)
        if body.cache_scope == "public":
            caller.require_operator("A public prefix")
        scope = scope_of(caller, body.cache_salt, body.cache_scope)
        num_found, missing = 0, PinNotFound(f"There is no pin '{body.name}' of yours.")
        for variant in self._ready_variants():
            try:
                await self._service.client.ask(Unpin(body.name, scope.tag), variant)
                num_found += 1
            except PinNotFound as error:
                missing = error
        if not num_found:
            raise missing
        return Unpinned(name=body.name)

    async def pins(self, connection: HTTPConnection, cache_salt: str | None) -> PinsView:
        scope = scope_of(self._service.caller(connection), cache_salt, None)
        views: list[PinView] = []
        num_blocks = most_blocks = 0
        for variant in self._ready_variants():
            answer = await self._service.client.ask(ListPins(scope.tag), variant)
            assert isinstance(answer, PinList)
            views += [_view(pin, variant, answer) for pin in answer.pins]
            num_blocks += answer.num_blocks
            most_blocks += answer.most_blocks
        return PinsView(pins=tuple(views), pinned_blocks=num_blocks, most_blocks=most_blocks)

    async def clear(
        self,
        caller: Caller,
        levels: tuple[str, ...],
        *,
        unpin: bool,
        dry_run: bool,
        tenant: str | None,
    ) -> Cleared:
        caller.require_operator("Clearing the cache")
        if tenant == "":
            raise InvalidRequest("tenant is empty: give an id, or leave it out.", param="tenant")
        scope = None if tenant is None else owner_tag(tenant)
        order = ClearCache(levels, unpin, dry_run, scope)
        cleared: dict[str, int] = {}
        for variant in self._ready_variants():
            answer = await self._service.client.ask(order, variant)
            assert isinstance(answer, ClearedCache)
            for level, num_blocks in answer.num_blocks.items():
                cleared[level] = cleared.get(level, 0) + num_blocks
        return Cleared(blocks=cleared, dry_run=dry_run)

    async def _prefix(
        self, request: Request, body: PrefixBody, prefix: str
    ) -> tuple[CallOrigin, CacheScope, list[int]]:
        origin = replace(self._service.origin(prefix, request, body.model), cache=None)
        scope = scope_of(origin.caller, body.cache_salt, body.cache_scope)
        token_ids = await parse(request, prefix_tokens, body, self._service.client.tokenizer)
        return origin, scope, token_ids

    async def _warm(
        self, request: Request, origin: CallOrigin, scope: CacheScope, token_ids: list[int]
    ) -> WarmResult:
        """Compute the prefix, and a token that nobody reads."""
        started_s = time.monotonic()
        warming = EngineRequest(
            request_id=uuid4().hex,
            prompt_token_ids=tuple(token_ids),
            sampling=SamplingParams(max_tokens=1, temperature=0.0),
            arrival_time_s=origin.arrival_time_s,
            priority=origin.caller.priority_of(_WARM_PRIORITY),
            tenant=origin.caller.tenant,
            weight=origin.caller.weight,
            cache_salt=scope.salt,
            cache_scope=scope.tag,
            variant=origin.variant,
        )
        [choice] = await self._service.whole(request, Call(origin=origin, requests=(warming,)))
        return WarmResult(
            num_tokens=len(token_ids),
            cached_tokens=choice.num_cached_tokens,
            computed_tokens=len(token_ids) - choice.num_cached_tokens,
            seconds=round(time.monotonic() - started_s, 6),
        )

    def _ready_variants(self) -> list[str]:
        """Those that can be asked; the main one even if it cannot, which then tells why."""
        main, *others = self._service.client.variants
        return [main.name, *(one.name for one in others if one.state is EngineState.READY)]


def prefix_tokens(body: PrefixBody, tokenizer: Tokenizer) -> list[int]:
    """Raises InvalidRequest unless there is one of `prompt` and `messages`."""
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("Give either prompt or messages.", param="prompt")
    if body.messages is None:
        assert body.prompt is not None
        return prompt_token_ids(body.prompt, tokenizer)[0]
    return tokenizer.apply_chat_template(
        plain_messages(body.messages),
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools] if body.tools else None,
        add_generation_prompt=False,
        continue_final_message=False,
        template_kwargs=body.chat_template_kwargs or {},
    )


def _name_of(token_ids: list[int]) -> str:
    """The same prefix has the same name."""
    return "prefix-" + blake3.blake3(repr(token_ids).encode()).hexdigest()[:12]


def _view(pin: PinInfo, variant: str, answer: PinList) -> PinView:
    return PinView(
        name=pin.name,
        variant=variant,
        public=pin.is_public,
        num_tokens=pin.num_tokens,
        num_blocks=pin.num_blocks,
        num_bytes=pin.num_blocks * answer.block_bytes,
        stored_blocks=pin.stored_blocks,
        expires_at=pin.expires_s,
    )
