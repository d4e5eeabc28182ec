"""Who did what stands in the audit log, before anybody hears of it; what was said does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from novacron.accounts.accounts import Accounts
from novacron.audit.lane_writer import LaneWriter
from novacron.audit.log import AuditLog
from novacron.audit.reading import Wanted, oldest_first
from novacron.audit.record import AuditRecord
from novacron.audit.verification import verify
from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.gateway.auditing.access import is_administrative
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.auditing.refused import RefusedAccess
from novacron.gateway.identity.permissions import PERMISSIONS
from novacron.testing.fake_engine_client import FakeEngineClient

ADMIN, USER = "first-key-of-the-server", "second-key-of-the-server"
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}
AS_USER = {"authorization": f"Bearer {USER}", "x-request-id": "call-7"}
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "a very private question"}]}


class Broken:
    """A lane on a disk that is full."""

    def append(self, records: object) -> None:
        raise OSError(28, "No space left on device")

    def sync(self) -> None: ...

    def reopen(self) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None: ...


class Noted:
    """As much of a log as keeps what is noted."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []

    def note(self, record: AuditRecord) -> None:
        self.records.append(record)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """With its lifespan: the log is complete when the block has ended."""
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield http


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def make_app(client: FakeEngineClient, accounts: Accounts, folder: Path) -> Callable[..., FastAPI]:
    def make(log: AuditLog | None = None, *, inference: bool = True) -> FastAPI:
        audit = OpenedAudit(log or AuditLog(LaneWriter(folder)), folder, inference)
        config = ServerConfig(api_key=(ADMIN, USER))
        with_database = accounts if inference else None
        return build_app(client, config, model_names=("fake",), accounts=with_database, audit=audit)

    return make


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def records(folder: Path, kind: str) -> list[AuditRecord]:
    return [entry.record for entry in oldest_first(folder, Wanted(kind=kind))]


async def test_a_change_has_a_record_before_and_after(
    make_app: Callable[..., FastAPI], folder: Path
) -> None:
    async with running(make_app()) as http:
        path = "/api/v1/llm/admin/tenants"
        assert (await http.post(path, json={"id": "acme"}, headers=AS_ADMIN)).status_code == 200
        assert (await http.delete(f"{path}/acme", headers=AS_ADMIN)).status_code == 200
        assert (await http.delete(f"{path}/nck_lost", headers=AS_ADMIN)).status_code == 404
        assert (await http.get(path, headers=AS_ADMIN)).status_code == 200
    told = [(r.method, r.route, r.outcome, r.status, r.target) for r in records(folder, "admin")]
    one = path + "/{id}"
    assert told == [
        ("POST", path, "begun", 0, ""),
        ("POST", path, "ok", 200, ""),
        ("DELETE", one, "begun", 0, ""),
        ("DELETE", one, "ok", 200, "acme"),
        ("DELETE", one, "begun", 0, ""),
        ("DELETE", one, "failed", 404, ""),
        ("GET", path, "ok", 200, ""),
    ]
    assert verify(folder).is_whole


async def test_a_call_has_its_tokens_and_nothing_of_what_was_said(
    make_app: Callable[..., FastAPI], folder: Path
) -> None:
    async with running(make_app(inference=True)) as http:
        url = "/v1/chat/completions"
        answer = (await http.post(url, json=CHAT, headers=AS_USER)).json()
        streamed = {**CHAT, "stream": True}
        assert (await http.post(url, json=streamed, headers=AS_USER)).status_code == 200
    first, second = records(folder, "inference")
    assert first.prompt_tokens == answer["usage"]["prompt_tokens"]
    assert first.output_tokens == answer["usage"]["completion_tokens"] == second.output_tokens
    assert (first.method, first.route, first.model) == ("POST", url, "fake")
    assert (first.request_id, first.outcome, first.status) == ("client:call-7", "ok", 200)
    assert first.tenant
    assert first.key_id
    everything = all_bytes(folder)
    said = answer["choices"][0]["message"]["content"]
    for text in ("private question", said, ADMIN, USER):
        assert text.encode() not in everything


async def test_refusals_are_told_wherever_they_come_from(
    make_app: Callable[..., FastAPI], folder: Path
) -> None:
    async with running(make_app()) as http:
        wrong = {"authorization": "Bearer nck_not-a-key-but-secret"}
        await http.get("/api/v1/llm/admin/keys/nck_typed-into-the-path", headers=wrong)
        await http.get("/nck_typed-into-the-path", headers=wrong)
        await http.post("/api/v1/llm/admin/tenants", json={"id": "x"}, headers=AS_USER)
    told = [(r.route, r.status, bool(r.tenant)) for r in records(folder, "refused")]
    assert told == [
        ("/api/v1/llm/admin/keys/{id}", 401, False),
        ("", 401, False),
        ("/api/v1/llm/admin/tenants", 403, True),
    ]
    assert records(folder, "admin") == []
    assert b"nck_" not in all_bytes(folder)


async def test_wrong_keys_do_not_fill_the_disk() -> None:
    """100 a second one by one, then their number."""

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})

    async def nothing(message: Message = {}) -> Message:  # noqa: B006
        return message

    noted = Noted()
    now = [1.0]
    app = RefusedAccess(refusing, cast(AuditLog, noted), clock=lambda: now[0])
    for number in range(321):
        now[0] = 1.0 if number < 320 else 2.0
        scope = {"type": "http", "method": "GET", "novacron.request_id": str(number)}
        scope["novacron.made_request_id"] = str(number)
        await app(scope, nothing, nothing)
    assert [one.request_id for one in noted.records[:100]] == [str(n) for n in range(100)]
    assert [one.count for one in noted.records[100:]] == [220, 0]


async def test_where_it_cannot_be_written_nothing_is_administered_and_inference_goes_on(
    make_app: Callable[..., FastAPI], accounts: Accounts
) -> None:
    log = AuditLog(Broken())
    async with running(make_app(log)) as http:
        made = await http.post("/api/v1/llm/admin/tenants", json={"id": "acme"}, headers=AS_ADMIN)
        assert (made.status_code, made.json()["error"]["code"]) == (503, "audit_unavailable")
        read = await http.get("/api/v1/llm/admin/tenants", headers=AS_ADMIN)
        assert read.status_code == 503
        assert "default" not in read.text
        answer = await http.post("/v1/chat/completions", json=CHAT, headers=AS_USER)
        assert answer.status_code == 200
        metrics = (await http.get("/metrics", headers=AS_ADMIN)).text
        assert "novacron_audit_errors_total" in metrics
    assert [tenant.id for tenant in accounts.administration.tenants.list()] == ["default"]
    assert log.counts.num_errors == 1


async def test_calls_are_left_out_where_that_is_wanted(
    make_app: Callable[..., FastAPI], folder: Path
) -> None:
    async with running(make_app(inference=False)) as http:
        await http.post("/v1/chat/completions", json=CHAT, headers=AS_USER)
    assert records(folder, "inference") == []


async def test_the_log_is_read_by_pages_and_only_by_those_who_may(
    make_app: Callable[..., FastAPI],
) -> None:
    async with running(make_app()) as http:
        url = "/api/v1/llm/admin/audit"
        assert (await http.get(url, headers=AS_USER)).status_code == 403
        await http.get("/api/v1/llm/admin/tenants", headers=AS_ADMIN)
        page = (await http.get(url, params={"limit": 1}, headers=AS_ADMIN)).json()
        assert len(page["entries"]) == 1
        params = {"limit": 1, "cursor": page["next"]}
        older = (await http.get(url, params=params, headers=AS_ADMIN)).json()
        assert older["entries"][0]["seq"] < page["entries"][0]["seq"]
        assert (await http.get(url, params={"cursor": "x"}, headers=AS_ADMIN)).status_code == 400


def test_administration_is_what_changes_something_or_shows_who_may_what() -> None:
    quiet = {name for name in PERMISSIONS if not is_administrative(name)}
    assert quiet == {
        "llm:inference:read",
        "llm:inference:write",
        "llm:models:read",
        "llm:cache:read",
        "llm:cluster:read",
        "llm:metrics:read",
    }
