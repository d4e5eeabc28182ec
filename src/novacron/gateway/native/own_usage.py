"""What a caller has used himself, and what he may use. Only servers with a database have it."""

from __future__ import annotations

from asyncio import to_thread
from typing import Literal

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from novacron.accounts.administration import Administration
from novacron.accounts.quota import NO_QUOTA, Account, Quota
from novacron.accounts.usage import UsageQuestion, UsageRow, as_csv
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.metering import account_of
from novacron.gateway.native.admin_usage import Seconds, groups_in
from novacron.gateway.openapi import AnswerSchemas


class OwnUsage(Struct, frozen=True):
    """Sums of the caller's own calls. `quotas` are those that his calls are held to, by subject:
    tenant:ID, user:ID, key:ID."""

    usage: tuple[UsageRow, ...]
    quotas: dict[str, Quota]


def own_usage_routes(accounts: Administration, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(prefix="/api/v1/llm", tags=["Native"], route_class=StrictJsonRoute)
    answers = schemas.answers(OwnUsage)
    answers[200]["content"]["text/csv"] = {"schema": {"type": "string"}}

    def quotas_of(account: Account) -> dict[str, Quota]:
        known = accounts.quotas.list()
        return {one: known.get(one, NO_QUOTA) for one in account.subjects}

    @router.get("/usage", response_class=Response, responses=answers)
    async def get_own_usage(
        request: Request,
        by: str = "model",
        since: Seconds = 0,
        until: Seconds | None = None,
        format: Literal["json", "csv"] = "json",
    ) -> Response:
        """What the caller has used: his user's calls; those of the key, if it has no user."""
        account = account_of(request.scope)
        question = UsageQuestion(
            by=groups_in(by),
            since=since,
            until=until,
            tenant=account.tenant_id,
            user=account.user_id,
            key="" if account.user_id else account.key_id,
        )
        rows = await to_thread(accounts.usage, question)
        if format == "csv":
            return Response(as_csv(question.by, rows), media_type="text/csv")
        return JsonResponse(OwnUsage(tuple(rows), await to_thread(quotas_of, account)))

    return router
