"""The endpoints that administer accounts. Only servers with a database have them."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from novacron.accounts.accounts import Accounts
from novacron.gateway.json_body import StrictJsonRoute
from novacron.gateway.native.admin_keys import add_key_routes
from novacron.gateway.native.admin_limits import add_limit_routes
from novacron.gateway.native.admin_people import add_people_routes
from novacron.gateway.native.admin_policies import PolicyRules, add_policy_routes
from novacron.gateway.native.admin_usage import add_usage_routes
from novacron.gateway.openapi import AnswerSchemas


def admin_routes(
    accounts: Accounts,
    schemas: AnswerSchemas,
    forget: Callable[[str], None],
    rules: PolicyRules,
) -> APIRouter:
    """`forget` makes this process look anew at a key, by its id. `rules` of policies of tenants."""
    router = APIRouter(
        prefix="/api/v1/llm/admin", tags=["Administration"], route_class=StrictJsonRoute
    )
    add_people_routes(router, accounts.administration, schemas)
    add_key_routes(router, accounts, schemas, forget)
    add_limit_routes(router, accounts.administration, schemas)
    add_policy_routes(router, accounts, schemas, rules)
    add_usage_routes(router, accounts.administration, schemas)
    return router
