"""The native endpoints of the KV cache: what it holds and is good for, pins, warming, clearing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native.cache_control import CacheControl
from novacron.gateway.native.cache_report import CacheHistory, CacheReport
from novacron.gateway.native.cache_schema import (
    Cleared,
    PinBody,
    PinResult,
    PinsView,
    UnpinBody,
    Unpinned,
    WarmBody,
    WarmResult,
)
from novacron.gateway.native.cache_status import CacheStatus, cache_status
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service


def cache_routes(service: Service, history: CacheHistory, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(prefix="/api/v1/llm/cache", tags=["KV cache"], route_class=StrictJsonRoute)
    control = CacheControl(service)

    @router.get("/status", response_class=Response, responses=schemas.answers(CacheStatus))
    async def status() -> Response:
        """How full the KV cache and its tiers are, and what they were good for."""
        return JsonResponse(cache_status(service.client.stats))

    @router.get("/report", response_class=Response, responses=schemas.answers(CacheReport))
    async def report(
        window: Annotated[float, Query(gt=0, le=3600, description="seconds")] = 600.0,
    ) -> Response:
        """The last minutes: figures, trends, what holds the cache back and what to do about it."""
        return JsonResponse(history.report(window))

    @router.get("/pins", response_class=Response, responses=schemas.answers(PinsView))
    async def pins(request: Request, cache_salt: str | None = None) -> Response:
        """Pinned prefixes: the caller's own, and public ones."""
        return JsonResponse(await control.pins(request, cache_salt))

    @router.post("/pin", response_class=Response, responses=schemas.answers(PinResult))
    async def pin(body: PinBody, request: Request) -> Response:
        """Keep a prefix in all tiers until it is unpinned, or `ttl` is over; also over restarts if
        there is a disk tier."""
        return JsonResponse(await control.pin(request, body))

    @router.post("/unpin", response_class=Response, responses=schemas.answers(Unpinned))
    async def unpin(body: UnpinBody, request: Request) -> Response:
        """Let a pinned prefix leave like any other."""
        return JsonResponse(await control.unpin(request, body))

    @router.post("/warm", response_class=Response, responses=schemas.answers(WarmResult))
    async def warm(body: WarmBody, request: Request) -> Response:
        """Compute a prefix now, so that requests that start with it find it."""
        return JsonResponse(await control.warm(request, body))

    @router.delete("", response_class=Response, responses=schemas.answers(Cleared))
    async def clear(
        request: Request,
        level: Annotated[
            list[str] | None, Query(description="device, ram, disk, ...; none: all")
        ] = None,
        tenant: Annotated[
            str | None,
            Query(
                description="only blocks of the tenant with this id, or, on a server without "
                "tenants, of this cache_salt"
            ),
        ] = None,
        unpin: bool = False,
        dry_run: bool = False,
    ) -> Response:
        """Drop cached blocks. Pinned ones stay, unless `unpin`. Running requests keep theirs."""
        cleared = await control.clear(
            service.caller(request),
            tuple(level or ()),
            unpin=unpin,
            dry_run=dry_run,
            tenant=tenant,
        )
        return JsonResponse(cleared)

    return router
