"""Kept prompts over HTTP, for those who may read them. Only servers that keep some have this.

Whoever reads here is in the audit log (gateway/auditing), with the tenant whose prompts he read.
"""

from __future__ import annotations

from asyncio import to_thread
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from novacron.config.tenants import NOBODY
from novacron.errors import Forbidden, RequestFailed
from novacron.gateway.cache_scope import caller_of
from novacron.gateway.identity.permissions import ACCOUNTS_WRITE
from novacron.gateway.identity.principal import principal_of
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.openapi import AnswerSchemas
from novacron.prompt_records.files import purge, read
from novacron.prompt_records.log import PromptLog
from novacron.prompt_records.record import PromptRecord

Seconds = Annotated[float, Query(ge=0, le=2**40)]


class PromptPage(Struct, frozen=True):
    """`unreadable` were sealed with a key that is not known here, or were changed."""

    records: tuple[PromptRecord, ...]
    unreadable: int


class PromptsPurged(Struct, frozen=True):
    """How many files of an hour each were removed."""

    files: int


def prompt_routes(log: PromptLog, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(
        prefix="/api/v1/llm/admin/prompts", tags=["Administration"], route_class=StrictJsonRoute
    )

    @router.get("/{tenant}", response_class=Response, responses=schemas.answers(PromptPage))
    async def get_prompts(
        request: Request,
        tenant: str,
        since: Seconds = 0,
        until: Seconds = 2**40,
        request_id: Annotated[str, Query(max_length=128)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """What was kept of a tenant's calls, newest first: of the caller's own, unless he may
        change accounts. `since` and `until` are Unix seconds."""
        _check_tenant(request, tenant)
        wanted = partial(read, since_s=since, until_s=until, request_id=request_id, limit=limit)
        try:
            found = await to_thread(wanted, log.root, tenant, log.cipher)
        except OSError as error:
            raise RequestFailed(f"Kept prompts cannot be read: {error}") from error
        return JsonResponse(PromptPage(found.records, found.num_unreadable))

    @router.delete("/{tenant}", response_class=Response, responses=schemas.answers(PromptsPurged))
    async def purge_prompts(request: Request, tenant: str, before: Seconds) -> Response:
        """Remove what was kept before that time (Unix seconds), in whole hours."""
        _check_tenant(request, tenant)
        try:
            num_files = await to_thread(purge, log.root, tenant, before)
        except OSError as error:
            raise RequestFailed(f"Kept prompts cannot be removed: {error}") from error
        return JsonResponse(PromptsPurged(num_files))

    return router


def _check_tenant(request: Request, tenant: str) -> None:
    """Raises Forbidden for another tenant's, unless the caller administers all."""
    principal = principal_of(request.scope)
    if principal is None or principal.allows(ACCOUNTS_WRITE):
        return
    if (caller_of(principal).tenant or NOBODY) != tenant:
        raise Forbidden(
            f"Prompts of other tenants need the permission {ACCOUNTS_WRITE}, which administrators "
            "have."
        )
