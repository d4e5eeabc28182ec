"""Policies of tenants over HTTP. The database works in a thread."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Container
from dataclasses import dataclass

from fastapi import APIRouter
from msgspec import Struct
from pydantic import Field
from starlette.responses import Response

from novacron.accounts.accounts import Accounts
from novacron.accounts.data_policy import DataPolicy
from novacron.config.tenants import CacheChoice
from novacron.errors import AccountConflict, InvalidRequest
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.native.admin_schema import Names, Removed
from novacron.gateway.openai.schema import Body
from novacron.gateway.openapi import AnswerSchemas


class PolicyBody(Body):
    """PUT /api/v1/llm/admin/tenants/{id}/policy: all of it. `retain` has durations by kind (audit,
    usage, prompts, responses), such as 7d."""

    record_prompts: bool = False
    retain: dict[str, str] = Field(default_factory=dict, max_length=4)
    regions: Names = Field(default_factory=list)
    response_cache: CacheChoice = "exact"


class PolicyList(Struct, frozen=True):
    """Policies, by tenant."""

    policies: dict[str, DataPolicy]


@dataclass(frozen=True)
class PolicyRules:
    """What this server can keep: `in_settings` are tenants whose policies its settings name, which
    go first."""

    in_settings: Container[str] = ()
    can_keep_prompts: bool = False

    def check(self, tenant: str, policy: DataPolicy) -> None:
        """Raises AccountConflict, and InvalidRequest for a promise that would be broken."""
        if tenant in self.in_settings:
            raise AccountConflict(
                f"tenant_policies in the settings of this server names '{tenant}', and goes first: "
                "change it there, or take it out and restart."
            )
        if policy.record_prompts and not self.can_keep_prompts:
            raise InvalidRequest(
                "This server keeps no prompts, since it could not encrypt them, or nobody would "
                "see who reads them: set encryption_key and audit_log.",
                param="record_prompts",
            )


def add_policy_routes(
    router: APIRouter, accounts: Accounts, schemas: AnswerSchemas, rules: PolicyRules
) -> None:
    records, one = accounts.administration.policies, schemas.answers(DataPolicy)

    @router.get("/policies", response_class=Response, responses=schemas.answers(PolicyList))
    async def list_policies() -> Response:
        """All policies that are kept with accounts; not those of settings."""
        return JsonResponse(PolicyList(await to_thread(records.list)))

    @router.get("/tenants/{id}/policy", response_class=Response, responses=one)
    async def get_policy(id: str) -> Response:
        """What may become of a tenant's data."""
        return JsonResponse(await to_thread(records.get, id))

    @router.put("/tenants/{id}/policy", response_class=Response, responses=one)
    async def set_policy(id: str, body: PolicyBody) -> Response:
        """Set what may become of a tenant's data. It holds at once here, elsewhere in seconds."""
        policy = DataPolicy(
            record_prompts=body.record_prompts,
            retain=body.retain,
            regions=tuple(body.regions),
            response_cache=body.response_cache,
        )
        rules.check(id, policy)
        made = await to_thread(records.set, id, policy)
        await to_thread(accounts.policies.refresh)
        return JsonResponse(made)

    @router.delete(
        "/tenants/{id}/policy", response_class=Response, responses=schemas.answers(Removed)
    )
    async def remove_policy(id: str) -> Response:
        """Remove a policy: the tenant has that of all others then."""
        await to_thread(records.remove, id)
        await to_thread(accounts.policies.refresh)
        return JsonResponse(Removed(id))
