"""The native endpoints of the response cache: what it is good for, and flushing it."""

from __future__ import annotations

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from novacron.errors import RequestFailed
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service
from novacron.response_cache.store import StoreFailed


class ResponseCacheStatus(Struct, frozen=True, kw_only=True):
    """Counts since the start of this process; what is kept, null if the store does not answer."""

    store: str | None
    entries: int | None = None
    bytes: int | None = None
    hits: int = 0
    semantic_hits: int = 0
    misses: int = 0
    bypassed: int = 0
    stored: int = 0
    not_stored: int = 0
    store_errors: int = 0
    saved_tokens: int = 0


class Flushed(Struct, frozen=True):
    """What was dropped, or would be."""

    entries: int
    bytes: int
    dry_run: bool


def response_cache_routes(service: Service, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(
        prefix="/api/v1/llm/response-cache", tags=["Response cache"], route_class=StrictJsonRoute
    )
    cache = service.response_cache

    @router.get("", response_class=Response, responses=schemas.answers(ResponseCacheStatus))
    async def response_cache_status() -> Response:
        """How often answers were found, and how much is kept; `store` is null where it is off."""
        if cache is None:
            return JsonResponse(ResponseCacheStatus(store=None))
        counts = cache.answers.counts
        events = counts.events
        amount = await cache.answers.amount()
        return JsonResponse(
            ResponseCacheStatus(
                store=cache.store_name,
                entries=amount.entries if amount else None,
                bytes=amount.bytes if amount else None,
                hits=events["hit"],
                semantic_hits=events["semantic_hit"],
                misses=events["miss"],
                bypassed=events["bypass"],
                stored=events["stored"],
                not_stored=events["not_stored"],
                store_errors=events["error"],
                saved_tokens=counts.num_saved_tokens,
            )
        )

    @router.delete("", response_class=Response, responses=schemas.answers(Flushed))
    async def flush_response_cache(
        request: Request, all_tenants: bool = False, dry_run: bool = False
    ) -> Response:
        """Drop the caller's cached answers; with `all_tenants`, everyone's."""
        caller = service.caller(request)
        if all_tenants:
            caller.require_operator("Flushing the answers of all tenants")
        if cache is None:
            return JsonResponse(Flushed(0, 0, dry_run))
        try:
            amount = await cache.flush(None if all_tenants else caller.tenant, dry_run=dry_run)
        except StoreFailed as error:
            raise RequestFailed(f"The response cache's store does not answer: {error}") from error
        return JsonResponse(Flushed(amount.entries, amount.bytes, dry_run))

    return router
