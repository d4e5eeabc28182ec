"""API keys over HTTP. The database and hashing work in a thread."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import Response

from novacron.accounts.accounts import Accounts
from novacron.gateway.identity.key_format import new_key
from novacron.gateway.identity.permissions import check_patterns
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.native.admin_schema import (
    KeyBody,
    KeyInfo,
    KeyList,
    MadeKey,
    RotateBody,
    key_info,
)
from novacron.gateway.openapi import AnswerSchemas


def add_key_routes(
    router: APIRouter,
    accounts: Accounts,
    schemas: AnswerSchemas,
    forget: Callable[[str], None],
) -> None:
    """`forget` makes this process look anew at a key, by its id; others do within seconds."""
    keys = accounts.administration.keys
    one, made = schemas.answers(KeyInfo), schemas.answers(MadeKey)

    @router.get("/keys", response_class=Response, responses=schemas.answers(KeyList))
    async def list_keys(tenant: str | None = None, user: str | None = None) -> Response:
        """All keys, or those of a tenant or user. Never the keys themselves."""
        found = await to_thread(keys.list, tenant_id=tenant, user_id=user)
        return JsonResponse(KeyList(tuple(key_info(key) for key in found)))

    @router.post("/keys", response_class=Response, responses=made)
    async def add_key(body: KeyBody) -> Response:
        """Make a key. It is shown once."""
        check_patterns(body.scopes, "scopes")
        new = new_key()
        key = await to_thread(
            keys.create,
            prefix=new.prefix,
            hash=await to_thread(accounts.hash_key, new.text),
            tenant_id=body.tenant_id,
            user_id=body.user_id,
            name=body.name,
            scopes=tuple(body.scopes),
            roles=tuple(body.roles),
            expires_at=body.expires_at,
        )
        return JsonResponse(MadeKey(new.text, key_info(key)))

    @router.get("/keys/{id}", response_class=Response, responses=one)
    async def get_key(id: str) -> Response:
        """One key."""
        return JsonResponse(key_info(await to_thread(keys.get, id)))

    @router.post("/keys/{id}/rotate", response_class=Response, responses=made)
    async def rotate_key(id: str, body: RotateBody | None = None) -> Response:
        """Make a key in place of another one, which stays valid for a while."""
        overlap_s = (body or RotateBody()).overlap_seconds
        new = new_key()
        key = await to_thread(
            keys.replace,
            id,
            prefix=new.prefix,
            hash=await to_thread(accounts.hash_key, new.text),
            overlap_until=int(time.time()) + overlap_s,
        )
        forget(id)
        return JsonResponse(MadeKey(new.text, key_info(key)))

    @router.delete("/keys/{id}", response_class=Response, responses=one)
    async def revoke_key(id: str) -> Response:
        """Revoke a key, for good. It stays in the list, so that usage has a name."""
        key = await to_thread(keys.revoke, id)
        forget(id)
        return JsonResponse(key_info(key))
