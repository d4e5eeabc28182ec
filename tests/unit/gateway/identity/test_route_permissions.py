"""Every route demands something, and 401 is told apart from 403."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount

from novacron.accounts.accounts import Accounts
from novacron.audit.lane_writer import LaneWriter
from novacron.audit.log import AuditLog
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineState
from novacron.gateway.app import build_app
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.auth import OPEN_PATHS
from novacron.gateway.console.pages import FILES
from novacron.gateway.identity.permissions import PERMISSIONS
from novacron.gateway.identity.principal import Principal
from novacron.gateway.identity.route_permissions import (
    ANYONE_KNOWN,
    OPEN,
    ROUTE_PERMISSIONS,
    UndeclaredRoutes,
    guard,
    names_of,
)
from novacron.gateway.privacy import Privacy
from novacron.prompt_records.log import PromptLog
from novacron.testing.fake_engine_client import FakeEngineClient


class Known:
    """The token says what it may do: permissions with commas between."""

    async def authenticate(self, token: bytes) -> Principal | None:
        if not token.startswith(b"may:"):
            return None
        return Principal(
            roles=("tester",), permissions=frozenset(token[4:].decode().split(",")) - {""}
        )

    def forget(self, key_id: str) -> None: ...


def may(*permissions: str) -> dict[str, str]:
    return {"authorization": "Bearer may:" + ",".join(permissions)}


@pytest.fixture
def app(client: FakeEngineClient, accounts: Accounts, tmp_path: Path) -> FastAPI:
    """With everything that a server can have."""
    audit = OpenedAudit(AuditLog(LaneWriter(tmp_path / "audit")), tmp_path / "audit")
    return build_app(
        client,
        ServerConfig(),
        model_names=("fake",),
        authenticator=Known(),
        accounts=accounts,
        audit=audit,
        privacy=Privacy(prompts=PromptLog(tmp_path / "prompts", NoCipher())),
    )


class NoCipher:
    """Nothing is sealed here."""

    def seal(self, data: object, purpose: bytes) -> bytes:
        raise OSError("there is no key")

    def open(self, sealed: object, purpose: bytes) -> bytes | None:
        return None


@pytest.fixture
def http(app: FastAPI, make_http) -> httpx2.AsyncClient:
    return make_http(app)


def all_names() -> Iterator[tuple[str, str, str]]:
    for name, permission in ROUTE_PERMISSIONS.items():
        method, _, path = name.partition(" ")
        yield (
            method,
            path.replace("{model_id:path}", "fake")
            .replace("{tenant}", "default")
            .replace("{", "")
            .replace("}", ""),
            permission,
        )


def test_the_table_has_every_route_and_no_other(app: FastAPI) -> None:
    served = [name for route in app.routes for name in names_of(route)]
    assert sorted(served) == sorted(ROUTE_PERMISSIONS)


def test_the_table_names_permissions_that_there_are() -> None:
    assert set(ROUTE_PERMISSIONS.values()) <= {OPEN, ANYONE_KNOWN, *PERMISSIONS}


def test_what_is_open_is_open_in_both_places() -> None:
    names = [name for name, permission in ROUTE_PERMISSIONS.items() if permission == OPEN]
    assert {name.partition(" ")[2] for name in names} == OPEN_PATHS | FILES.keys()


def test_a_route_without_a_permission_keeps_the_application_from_starting() -> None:
    router = APIRouter()

    @router.get("/new")
    async def new() -> None: ...

    @router.websocket("/socket")
    async def socket() -> None: ...

    with pytest.raises(UndeclaredRoutes, match="GET /new, WEBSOCKET /socket"):
        guard(router.routes)
    with pytest.raises(UndeclaredRoutes, match="Mount"):
        guard([Mount("/files", FastAPI())])


async def test_who_is_not_known_gets_401_and_who_may_not_gets_403(
    app: FastAPI, http: httpx2.AsyncClient
) -> None:
    for method, path, permission in all_names():
        everything_else = may(*(set(PERMISSIONS) - {permission}))
        statuses = [
            await status_of(app, http, method, path, headers)
            for headers in ({}, {"authorization": "Bearer no"}, everything_else, may(permission))
        ]
        if permission == OPEN:
            assert statuses == [200] * 4
        else:
            assert statuses[:2] == [401, 401], path
            assert (statuses[2] == 403) == (permission != ANYONE_KNOWN), path
            assert statuses[3] not in (401, 403), path


async def status_of(
    app: FastAPI, http: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> int:
    if method == "WEBSOCKET":
        return await connect(app, path, headers)
    answer = await http.request(method, path, headers=headers)
    if answer.status_code in (401, 403):
        challenge = answer.headers["www-authenticate"]
        error = answer.json()["error"]
        if isinstance(error, dict) and "code" in error:  # else in the words of another dialect
            assert error["code"] == (
                "permission_denied" if "insufficient_scope" in challenge else "invalid_api_key"
            )
        assert ("invalid_token" in challenge) == (headers != {} and answer.status_code == 401)
    return answer.status_code


async def connect(app: FastAPI, path: str, headers: dict[str, str], query: str = "") -> int:
    """The status with which a WebSocket is answered; 101 if it is accepted."""
    said: list[dict[str, Any]] = []
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not said:
            return {"type": "websocket.connect"}
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)
        answered.set()

    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "ws",
        "headers": [
            (b"host", b"localhost"),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    first = said[0]
    return int(first["status"]) if first["type"] == "websocket.http.response.start" else 101


@pytest.mark.parametrize(
    "query", ["token=may:x", "api_key=may:llm:inference:write", "access_token=may:"]
)
async def test_a_token_in_the_address_is_not_looked_at(
    app: FastAPI, http: httpx2.AsyncClient, query: str
) -> None:
    assert await connect(app, "/ws/llm/stream/a", {}, query) == 401
    assert (await http.get(f"/v1/models?{query}")).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models", "/v1//models", "/v1/models/", "/V1/models", "/v1/%6dodels", "/v1%2fmodels",
        "/%2e/v1/models", "/health/../v1/models", "/health/%2e%2e/v1/models", "/health/",
        "/x//health", "/Health", "/health%00", "/health;x=/v1/models", "/version/v1/models",
        "/metrics/", "/docs/", "/api/v1/llm/models/fake%2fload", "/api/v1/llm/models//load",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_opens_a_door(http: httpx2.AsyncClient, path: str) -> None:
    for method in ("GET", "POST", "HEAD", "OPTIONS", "get"):
        assert (await http.request(method, path)).status_code == 401
        allowed = await http.request(method, path, headers=may())
        assert allowed.status_code in (403, 404, 405, 307) or "docs" in path


async def test_whatever_a_path_is_made_of_the_route_that_runs_was_allowed(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    """With the permission for another route that the same path could be taken for."""
    reads = may("llm:models:read", "llm:inference:read")
    for path in ("/api/v1/llm/models/fake/load", "/api/v1/llm/models/fake%2Funload"):
        assert (await http.post(path, headers=reads)).status_code == 403
        assert (await http.get(path, headers=reads)).status_code == 404  # the model "fake/load"
    assert client.state is EngineState.READY
