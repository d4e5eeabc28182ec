"""Who came by which route: what records of the audit log are made of. Pure."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from novacron.audit.record import AuditRecord, Kind
from novacron.gateway.identity import permissions as p
from novacron.gateway.identity.principal import principal_of
from novacron.gateway.middleware import audited_id, made_id_of, request_id_of

_READS: Final = frozenset(
    {p.ACCOUNTS_READ, p.KEYS_READ, p.AUDIT_READ, p.CONFIG_READ, p.PROMPTS_READ}
)
_LONGEST_TARGET: Final = 200


def is_administrative(permission: str) -> bool:
    """Whether a route that demands this is recorded as administration: whatever changes the server
    or its caches, and reads of who may do what. Inference has records of its own."""
    return permission in _READS or (
        permission.endswith(":write") and permission != p.INFERENCE_WRITE
    )


class Access(NamedTuple):
    """Who, and by which route. `route` is a template: what was put into it is not in it."""

    method: str
    route: str
    tenant: str
    user: str
    key_id: str
    made_id: str = ""  # of the request, if the server has made it


def access_of(scope: Scope) -> Access:
    """Of a request whose route is found."""
    principal = principal_of(scope)
    made_id = made_id_of(scope)
    method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
    if principal is None:
        return Access(method, _template(scope), "", "", "", made_id)
    return Access(
        method,
        _template(scope),
        principal.tenant_id,
        principal.user_id,
        principal.key_id,
        made_id,
    )


def record_of(
    access: Access, kind: Kind, scope: Scope, outcome: str, status: int = 0, target: str = ""
) -> AuditRecord:
    return AuditRecord(
        time=now(),
        kind=kind,
        tenant=access.tenant,
        user=access.user,
        key_id=access.key_id,
        method=access.method,
        route=access.route,
        target=target,
        status=status,
        request_id=audited_id(request_id_of(scope), made_id_of(scope)),
        outcome=outcome,
    )


def target_of(scope: Scope) -> str:
    """What stands in the template's place. For accesses that went well: then it names something
    that exists, and is not a key that was put there by mistake."""
    values = scope.get("path_params", {}).values()
    return " ".join(map(str, values))[:_LONGEST_TARGET]


def now() -> float:
    return round(time.time(), 3)


def _template(scope: Scope) -> str:
    """Empty if there is no such route: the path itself may hold anything."""
    route = scope.get("route")
    if route is None and "app" in scope:  # refused before it was looked for
        routes: list[BaseRoute] = scope["app"].routes
        route = next((one for one in routes if one.matches(scope)[0] is Match.FULL), None)
    return str(getattr(route, "path", ""))
