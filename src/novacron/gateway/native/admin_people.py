"""Tenants, users and roles over HTTP. The database works in a thread."""

from __future__ import annotations

from asyncio import to_thread
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from novacron.accounts.administration import Administration
from novacron.accounts.records import Role, Tenant, User
from novacron.gateway.identity.permissions import check_patterns, check_role
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.native.admin_schema import (
    Removed,
    RoleBody,
    RoleChange,
    RoleList,
    TenantBody,
    TenantChange,
    TenantList,
    UserBody,
    UserChange,
    UserList,
)
from novacron.gateway.openai.schema import Body
from novacron.gateway.openapi import AnswerSchemas


def add_people_routes(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    _add_tenants(router, accounts, schemas)
    _add_users(router, accounts, schemas)
    _add_roles(router, accounts, schemas)


def _add_tenants(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    one, many = schemas.answers(Tenant), schemas.answers(TenantList)

    @router.get("/tenants", response_class=Response, responses=many)
    async def list_tenants() -> Response:
        """All tenants."""
        return JsonResponse(TenantList(await to_thread(accounts.tenants.list)))

    @router.post("/tenants", response_class=Response, responses=one)
    async def add_tenant(body: TenantBody) -> Response:
        """Add a tenant."""
        return JsonResponse(await to_thread(accounts.tenants.create, body.id, name=body.name))

    @router.get("/tenants/{id}", response_class=Response, responses=one)
    async def get_tenant(id: str) -> Response:
        """One tenant."""
        return JsonResponse(await to_thread(accounts.tenants.get, id))

    @router.patch("/tenants/{id}", response_class=Response, responses=one)
    async def change_tenant(id: str, body: TenantChange) -> Response:
        """Rename, disable or enable a tenant."""
        return JsonResponse(await to_thread(accounts.tenants.change, id, **_given(body)))

    @router.delete("/tenants/{id}", response_class=Response, responses=schemas.answers(Removed))
    async def remove_tenant(id: str) -> Response:
        """Remove a tenant that has neither users nor keys."""
        await to_thread(accounts.tenants.remove, id)
        return JsonResponse(Removed(id))


def _add_users(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    one, many = schemas.answers(User), schemas.answers(UserList)

    @router.get("/users", response_class=Response, responses=many)
    async def list_users(tenant: str | None = None) -> Response:
        """All users, or those of a tenant."""
        return JsonResponse(UserList(await to_thread(accounts.users.list, tenant_id=tenant)))

    @router.post("/users", response_class=Response, responses=one)
    async def add_user(body: UserBody) -> Response:
        """Add a user to a tenant."""
        user = await to_thread(
            accounts.users.create,
            body.id,
            tenant_id=body.tenant_id,
            name=body.name,
            email=body.email,
            roles=tuple(body.roles),
        )
        return JsonResponse(user)

    @router.get("/users/{id}", response_class=Response, responses=one)
    async def get_user(id: str) -> Response:
        """One user."""
        return JsonResponse(await to_thread(accounts.users.get, id))

    @router.patch("/users/{id}", response_class=Response, responses=one)
    async def change_user(id: str, body: UserChange) -> Response:
        """Change a user's names and roles, disable or enable him."""
        return JsonResponse(await to_thread(accounts.users.change, id, **_given(body)))

    @router.delete("/users/{id}", response_class=Response, responses=schemas.answers(Removed))
    async def remove_user(id: str) -> Response:
        """Remove a user who has no keys."""
        await to_thread(accounts.users.remove, id)
        return JsonResponse(Removed(id))


def _add_roles(router: APIRouter, accounts: Administration, schemas: AnswerSchemas) -> None:
    one = schemas.answers(Role)

    @router.get("/roles", response_class=Response, responses=schemas.answers(RoleList))
    async def list_roles() -> Response:
        """Roles that are not built in."""
        return JsonResponse(RoleList(await to_thread(accounts.roles.list)))

    @router.post("/roles", response_class=Response, responses=one)
    async def add_role(body: RoleBody) -> Response:
        """Add a role."""
        check_role(body.name, body.permissions)
        role = await to_thread(
            accounts.roles.create,
            body.name,
            permissions=tuple(body.permissions),
            description=body.description,
        )
        return JsonResponse(role)

    @router.patch("/roles/{name}", response_class=Response, responses=one)
    async def change_role(name: str, body: RoleChange) -> Response:
        """Change what a role allows, for whoever has it, or its description."""
        check_patterns(body.permissions or (), "permissions")
        return JsonResponse(await to_thread(accounts.roles.change, name, **_given(body)))

    @router.delete("/roles/{name}", response_class=Response, responses=schemas.answers(Removed))
    async def remove_role(name: str) -> Response:
        """Remove a role. Who has it loses what it allowed."""
        await to_thread(accounts.roles.remove, name)
        return JsonResponse(Removed(name))


def _given(body: Body) -> dict[str, Any]:
    """The fields that are to change."""
    return body.model_dump(exclude_none=True, include=set(type(body).model_fields))
