"""Usage over HTTP, as JSON or CSV. The database works in a thread."""

from __future__ import annotations

from asyncio import to_thread
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from novacron.accounts.administration import Administration
from novacron.accounts.usage import Group, UsageQuestion, as_csv, groups_of
from novacron.errors import InvalidRequest
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.native.admin_schema import UsageReport
from novacron.gateway.openapi import AnswerSchemas

Seconds = Annotated[int, Query(ge=0, le=2**40)]


def add_usage_routes(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    answers = schemas.answers(UsageReport)
    answers[200]["content"]["text/csv"] = {"schema": {"type": "string"}}

    @router.get("/usage", response_class=Response, responses=answers)
    async def get_usage(
        by: str = "tenant",
        since: Seconds = 0,
        until: Seconds | None = None,
        tenant: str = "",
        user: str = "",
        key: str = "",
        model: str = "",
        format: Literal["json", "csv"] = "json",
    ) -> Response:
        """Sums by any of tenant, user, key, model, variant, hour and day, with commas between.

        `since` and `until` are Unix seconds; hours count in which calls began.
        """
        question = UsageQuestion(
            by=groups_in(by),
            since=since,
            until=until,
            tenant=tenant,
            user=user,
            key=key,
            model=model,
        )
        rows = await to_thread(accounts.usage, question)
        if format == "csv":
            return Response(as_csv(question.by, rows), media_type="text/csv")
        return JsonResponse(UsageReport(tuple(rows)))


def groups_in(text: str) -> tuple[Group, ...]:
    """Of a query. Raises InvalidRequest."""
    try:
        return groups_of(text)
    except ValueError as error:
        raise InvalidRequest(str(error), param="by") from error
