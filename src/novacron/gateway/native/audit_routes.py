"""The audit log over HTTP. Only servers that write one have this."""

from __future__ import annotations

from asyncio import to_thread
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from novacron.audit.reading import Page, Wanted, newest_first
from novacron.errors import InvalidRequest
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.openapi import AnswerSchemas

Seconds = Annotated[float, Query(ge=0, le=2**40)]


def audit_routes(folder: Path, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(
        prefix="/api/v1/llm/admin", tags=["Administration"], route_class=StrictJsonRoute
    )

    @router.get("/audit", response_class=Response, responses=schemas.answers(Page))
    async def get_audit(
        since: Seconds = 0,
        until: Seconds | None = None,
        tenant: Annotated[str, Query(max_length=128)] = "",
        kind: Literal["", "admin", "inference", "refused", "start", "purge", "lost"] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str, Query(max_length=20_000, pattern=r"^(\d{1,4}:\d{1,18},?)*$")] = "",
    ) -> Response:
        """Records, newest first; `cursor` is `next` of the page before.

        `since` and `until` are Unix seconds. A page may be short of `limit`, or empty, and have a
        `next`: no more than 100,000 records are looked at for one.
        """
        wanted = Wanted(since=since, until=until, tenant=tenant, kind=kind)
        try:
            return JsonResponse(await to_thread(newest_first, folder, wanted, limit, cursor))
        except ValueError as error:
            raise InvalidRequest(
                "cursor is not one of a page's `next`. Leave it out to begin anew.", param="cursor"
            ) from error

    return router
