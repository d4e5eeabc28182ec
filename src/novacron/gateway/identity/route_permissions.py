"""What each route demands: the one place that says so.

A route that is not listed keeps the application from starting, so none is open by oversight. The
check hangs on the route itself, behind the framework's choice of it: however a path is spelt, what
is run is what was checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from novacron.errors import NovaCronError, PermissionDenied, Unauthenticated
from novacron.gateway.console.pages import FILES
from novacron.gateway.error_handlers import error_response
from novacron.gateway.identity import permissions as p
from novacron.gateway.identity.principal import Principal, principal_of

OPEN: Final = ""  # probes, and files that hold nothing of the server's
ANYONE_KNOWN: Final = "known"  # any valid credential

ROUTE_PERMISSIONS: Final[Mapping[str, str]] = {
    # probes and pages
    "GET /health": OPEN,
    "GET /ready": OPEN,
    "GET /version": OPEN,
    **dict.fromkeys((f"GET {path}" for path in FILES), OPEN),
    "GET /metrics": p.METRICS_READ,
    "GET /openapi.json": ANYONE_KNOWN,
    "GET /docs": ANYONE_KNOWN,
    "GET /docs/oauth2-redirect": ANYONE_KNOWN,
    "GET /redoc": ANYONE_KNOWN,
    # OpenAI
    "POST /v1/chat/completions": p.INFERENCE_WRITE,
    "POST /v1/completions": p.INFERENCE_WRITE,
    "POST /v1/embeddings": p.INFERENCE_WRITE,
    "GET /v1/models": p.MODELS_READ,
    "GET /v1/models/{model_id:path}": p.MODELS_READ,
    "POST /v1/responses": p.INFERENCE_WRITE,
    "POST /v1/responses/input_tokens": p.INFERENCE_READ,
    "GET /v1/responses/{response_id}": p.INFERENCE_READ,
    "GET /v1/responses/{response_id}/input_items": p.INFERENCE_READ,
    "POST /v1/responses/{response_id}/cancel": p.INFERENCE_WRITE,
    "DELETE /v1/responses/{response_id}": p.INFERENCE_WRITE,
    # Anthropic
    "POST /v1/messages": p.INFERENCE_WRITE,
    "POST /v1/messages/count_tokens": p.INFERENCE_READ,
    # Ollama
    "POST /api/chat": p.INFERENCE_WRITE,
    "POST /api/generate": p.INFERENCE_WRITE,
    "POST /api/embed": p.INFERENCE_WRITE,
    "POST /api/embeddings": p.INFERENCE_WRITE,
    "GET /api/tags": p.MODELS_READ,
    "GET /api/ps": p.MODELS_READ,
    "POST /api/show": p.MODELS_READ,
    "GET /api/version": ANYONE_KNOWN,
    # how near texts are to each other
    "POST /v1/rerank": p.INFERENCE_WRITE,
    "POST /v2/rerank": p.INFERENCE_WRITE,
    "POST /rerank": p.INFERENCE_WRITE,
    "POST /v1/score": p.INFERENCE_WRITE,
    "POST /score": p.INFERENCE_WRITE,
    # of no dialect
    "POST /tokenize": p.INFERENCE_READ,
    "POST /detokenize": p.INFERENCE_READ,
    # native: calls
    "POST /api/v1/llm/chat/completions": p.INFERENCE_WRITE,
    "POST /api/v1/llm/completions": p.INFERENCE_WRITE,
    "POST /api/v1/llm/batch/completions": p.INFERENCE_WRITE,
    "GET /api/v1/llm/stream/{request_id}": p.INFERENCE_READ,
    "DELETE /api/v1/llm/requests/{request_id}": p.INFERENCE_WRITE,
    "WEBSOCKET /ws/llm/stream/{request_id}": p.INFERENCE_WRITE,
    # native: models
    "GET /api/v1/llm/models": p.MODELS_READ,
    "GET /api/v1/llm/models/{model_id:path}": p.MODELS_READ,
    "DELETE /api/v1/llm/models/{model_id:path}": p.MODELS_WRITE,
    "POST /api/v1/llm/models/{model_id:path}/load": p.MODELS_WRITE,
    "POST /api/v1/llm/models/{model_id:path}/unload": p.MODELS_WRITE,
    "DELETE /api/v1/llm/models/{model_id:path}/unload": p.MODELS_WRITE,
    # native: the server
    "GET /api/v1/llm/health": p.CLUSTER_READ,
    "GET /api/v1/llm/metrics": p.METRICS_READ,
    "GET /api/v1/llm/metrics/inference": p.METRICS_READ,
    "GET /api/v1/llm/metrics/resources": p.METRICS_READ,
    "GET /api/v1/llm/cluster/status": p.CLUSTER_READ,
    "GET /api/v1/llm/cluster/workers": p.CLUSTER_READ,
    "POST /api/v1/llm/cluster/scale": p.CLUSTER_WRITE,
    "POST /api/v1/llm/cluster/workers/{worker_id}/drain": p.CLUSTER_WRITE,
    "POST /api/v1/llm/cluster/workers/{worker_id}/resume": p.CLUSTER_WRITE,
    # KV cache
    "GET /api/v1/llm/cache/status": p.CACHE_READ,
    "GET /api/v1/llm/cache/report": p.CACHE_READ,
    "GET /api/v1/llm/cache/pins": p.CACHE_READ,
    "POST /api/v1/llm/cache/pin": p.CACHE_WRITE,
    "POST /api/v1/llm/cache/unpin": p.CACHE_WRITE,
    "POST /api/v1/llm/cache/warm": p.CACHE_WRITE,
    "DELETE /api/v1/llm/cache": p.CLUSTER_WRITE,
    # on servers with a database
    "GET /api/v1/llm/usage": ANYONE_KNOWN,
    "GET /api/v1/llm/admin/tenants": p.ACCOUNTS_READ,
    "POST /api/v1/llm/admin/tenants": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/tenants/{id}": p.ACCOUNTS_READ,
    "PATCH /api/v1/llm/admin/tenants/{id}": p.ACCOUNTS_WRITE,
    "DELETE /api/v1/llm/admin/tenants/{id}": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/policies": p.ACCOUNTS_READ,
    "GET /api/v1/llm/admin/tenants/{id}/policy": p.ACCOUNTS_READ,
    "PUT /api/v1/llm/admin/tenants/{id}/policy": p.ACCOUNTS_WRITE,
    "DELETE /api/v1/llm/admin/tenants/{id}/policy": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/users": p.ACCOUNTS_READ,
    "POST /api/v1/llm/admin/users": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/users/{id}": p.ACCOUNTS_READ,
    "PATCH /api/v1/llm/admin/users/{id}": p.ACCOUNTS_WRITE,
    "DELETE /api/v1/llm/admin/users/{id}": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/roles": p.ACCOUNTS_READ,
    "POST /api/v1/llm/admin/roles": p.ACCOUNTS_WRITE,
    "PATCH /api/v1/llm/admin/roles/{name}": p.ACCOUNTS_WRITE,
    "DELETE /api/v1/llm/admin/roles/{name}": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/keys": p.KEYS_READ,
    "POST /api/v1/llm/admin/keys": p.KEYS_WRITE,
    "GET /api/v1/llm/admin/keys/{id}": p.KEYS_READ,
    "POST /api/v1/llm/admin/keys/{id}/rotate": p.KEYS_WRITE,
    "DELETE /api/v1/llm/admin/keys/{id}": p.KEYS_WRITE,
    "GET /api/v1/llm/admin/quotas": p.ACCOUNTS_READ,
    "GET /api/v1/llm/admin/quotas/{kind}/{id}": p.ACCOUNTS_READ,
    "PUT /api/v1/llm/admin/quotas/{kind}/{id}": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/prices": p.ACCOUNTS_READ,
    "PUT /api/v1/llm/admin/prices/{model:path}": p.ACCOUNTS_WRITE,
    "GET /api/v1/llm/admin/usage": p.ACCOUNTS_READ,
    # on servers with an audit log
    "GET /api/v1/llm/admin/audit": p.AUDIT_READ,
    # on servers that keep prompts
    "GET /api/v1/llm/admin/prompts/{tenant}": p.PROMPTS_READ,
    "DELETE /api/v1/llm/admin/prompts/{tenant}": p.PROMPTS_WRITE,
    # Response cache
    "GET /api/v1/llm/response-cache": p.CACHE_READ,
    "DELETE /api/v1/llm/response-cache": p.CACHE_WRITE,
}


class RequirePermission:
    """Runs `app` only for principals that have the permission of the method. 403 for others."""

    def __init__(self, app: ASGIApp, permissions: Mapping[str, str]) -> None:
        self._app = app
        self._permissions = permissions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        permission = self._permissions[method]
        if permission != OPEN and not _may(principal_of(scope), permission):
            await error_response(_refusal(principal_of(scope), permission))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _may(principal: Principal | None, permission: str) -> bool:
    return principal is not None and (permission == ANYONE_KNOWN or principal.allows(permission))


def _refusal(principal: Principal | None, permission: str) -> NovaCronError:
    if principal is None:
        return Unauthenticated("An API key is required here.")
    return PermissionDenied(permission, principal.roles)


def guard(routes: Iterable[BaseRoute]) -> None:
    """Make every route demand its permission. Raises UndeclaredRoutes: a bug of ours."""
    routes = tuple(routes)
    missing = [
        name for route in routes for name in names_of(route) if name not in ROUTE_PERMISSIONS
    ]
    if missing:
        raise UndeclaredRoutes(missing)
    for route in routes:
        assert isinstance(route, Route | APIRoute | APIWebSocketRoute)
        table = {name.partition(" ")[0]: ROUTE_PERMISSIONS[name] for name in names_of(route)}
        if "GET" in table:
            table["HEAD"] = table["GET"]
        route.app = RequirePermission(route.app, table)


def names_of(route: BaseRoute) -> Iterator[str]:
    """`METHOD /path` for each method of a route, as the table has them; HEAD goes with GET.

    A kind of route that this does not know has a name that no table has.
    """
    match route:
        case Route(methods=set() | frozenset() as methods):
            yield from (f"{method} {route.path}" for method in sorted(methods) if method != "HEAD")
        case APIWebSocketRoute():
            yield f"WEBSOCKET {route.path}"
        case _:
            yield f"? {route!r}"


class UndeclaredRoutes(Exception):
    """Routes without a row in ROUTE_PERMISSIONS."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(
            "no permission is declared in gateway/identity/route_permissions.py for: "
            + ", ".join(names)
        )
