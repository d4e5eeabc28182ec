"""Quotas and prices over HTTP. The database works in a thread."""

from __future__ import annotations

from asyncio import to_thread

from fastapi import APIRouter
from starlette.responses import Response

from novacron.accounts.administration import Administration
from novacron.accounts.price import Price
from novacron.accounts.quota import Quota, SubjectKind
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.native.admin_schema import PriceBody, PriceList, QuotaBody, QuotaList
from novacron.gateway.openapi import AnswerSchemas


def add_limit_routes(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    one = schemas.answers(Quota)

    @router.get("/quotas", response_class=Response, responses=schemas.answers(QuotaList))
    async def list_quotas() -> Response:
        """All quotas."""
        return JsonResponse(QuotaList(await to_thread(accounts.quotas.list)))

    @router.get("/quotas/{kind}/{id}", response_class=Response, responses=one)
    async def get_quota(kind: SubjectKind, id: str) -> Response:
        """The quota of a tenant, user or key; without limits, where none was set."""
        return JsonResponse(await to_thread(accounts.quotas.get, kind, id))

    @router.put("/quotas/{kind}/{id}", response_class=Response, responses=one)
    async def set_quota(kind: SubjectKind, id: str, body: QuotaBody) -> Response:
        """Set the quota of a tenant, user or key. It holds within a second."""
        return JsonResponse(await to_thread(accounts.quotas.set, kind, id, body.quota()))

    @router.get("/prices", response_class=Response, responses=schemas.answers(PriceList))
    async def list_prices() -> Response:
        """All prices."""
        return JsonResponse(PriceList(await to_thread(accounts.prices.list)))

    @router.put("/prices/{model:path}", response_class=Response, responses=schemas.answers(Price))
    async def set_price(model: str, body: PriceBody) -> Response:
        """Set what tokens of a model cost, for calls that end from now on."""
        cached = body.prompt_micro if body.cached_micro is None else body.cached_micro
        price = Price(
            prompt_micro=body.prompt_micro, cached_micro=cached, output_micro=body.output_micro
        )
        return JsonResponse(await to_thread(accounts.prices.set, model, price))
