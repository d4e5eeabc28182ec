"""API keys over HTTP. The database works in a thread."""

from __future__ import annotations

from asyncio import to_thread

from fastapi import APIRouter
from starlette.responses import Response

from novacron.accounts.administration import Administration
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.native.admin_schema import KeyInfo, KeyList, key_info
from novacron.gateway.openapi import AnswerSchemas


def add_key_routes(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    one = schemas.answers(KeyInfo)

    @router.get("/keys", response_class=Response, responses=schemas.answers(KeyList))
    async def list_keys(tenant: str | None = None, user: str | None = None) -> Response:
        """All keys, or those of a tenant or user. Never the keys themselves."""
        keys = await to_thread(accounts.keys.list, tenant_id=tenant, user_id=user)
        return JsonResponse(KeyList(tuple(key_info(key) for key in keys)))

    @router.get("/keys/{id}", response_class=Response, responses=one)
    async def get_key(id: str) -> Response:
        """One key."""
        return JsonResponse(key_info(await to_thread(accounts.keys.get, id)))

    @router.delete("/keys/{id}", response_class=Response, responses=one)
    async def revoke_key(id: str) -> Response:
        """Revoke a key, for good. It stays in the list, so that usage has a name."""
        return JsonResponse(key_info(await to_thread(accounts.keys.revoke, id)))
