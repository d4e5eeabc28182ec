"""Prompts and answers: kept of tenants that want it, encrypted, and read by those who may."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from novacron.audit.lane_writer import LaneWriter
from novacron.audit.log import AuditLog
from novacron.audit.reading import Wanted, oldest_first
from novacron.cli.privacy import open_privacy
from novacron.config.load import load
from novacron.config.server import ServerConfig
from novacron.config.tenants import parse_policies
from novacron.encryption.key_places import FolderPlace
from novacron.encryption.key_ring import KeyRing
from novacron.encryption.key_sources import open_master_keys
from novacron.encryption.master_keys import new_master_key
from novacron.encryption.sealing import Sealing
from novacron.errors import ConfigError
from novacron.gateway.app import build_app
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.identity.configured_keys import tenant_of
from novacron.gateway.privacy import Privacy
from novacron.prompt_records.files import folder_of, purge, read
from novacron.prompt_records.log import PromptLog
from novacron.testing.fake_engine_client import FakeEngineClient

ADMIN, USER, OTHER = "first-key", "second-key", "third-key"
WANTS, DOES_NOT = tenant_of(USER), tenant_of(OTHER)
PATH = "/api/v1/llm/admin/prompts"
QUESTION = "a very private question"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def sealing(folder: Path, key: str) -> Sealing:
    return Sealing(KeyRing(FolderPlace(folder / "keys"), open_master_keys("env:K", {"K": key})))


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield http


@pytest.fixture
def key() -> str:
    return new_master_key()


@pytest.fixture
def make_app(client: FakeEngineClient, tmp_path: Path, key: str) -> Callable[[], FastAPI]:
    def make() -> FastAPI:
        folder = tmp_path / "audit"
        audit = OpenedAudit(AuditLog(LaneWriter(folder)), folder)
        policies = parse_policies(({"name": WANTS, "record_prompts": True},))
        prompts = PromptLog(tmp_path / "prompts", sealing(tmp_path, key))
        return build_app(
            client,
            ServerConfig(api_key=(ADMIN, USER, OTHER)),
            model_names=("fake",),
            audit=audit,
            privacy=Privacy(policies=policies, prompts=prompts),
        )

    return make


async def ask(http: httpx2.AsyncClient, key: str, **fields: object) -> str:
    body = {"model": "fake", "messages": [{"role": "user", "content": QUESTION}], **fields}
    answer = await http.post("/v1/chat/completions", json=body, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_they_are_kept_of_those_who_want_it_encrypted_and_read_by_an_administrator(
    make_app: Callable[[], FastAPI], tmp_path: Path
) -> None:
    async with running(make_app()) as http:
        whole = await ask(http, USER)
        await ask(http, USER, stream=True, n=2)
        await ask(http, OTHER)
    files = [path for path in (tmp_path / "prompts").rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    assert not any(QUESTION.encode() in path.read_bytes() for path in files)
    async with running(make_app()) as http:
        refused = await http.get(f"{PATH}/{WANTS}", headers=bearer(USER))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        page = (await http.get(f"{PATH}/{WANTS}", headers=bearer(ADMIN))).json()
        assert page["unreadable"] == 0
        streamed, first = page["records"]
        assert QUESTION in first["prompts"][0]
        assert first["answers"][0] in whole
        assert (len(streamed["prompts"]), len(streamed["answers"])) == (1, 2)
        assert (await http.get(f"{PATH}/{DOES_NOT}", headers=bearer(ADMIN))).json() == {
            "records": [], "unreadable": 0,
        }  # fmt: skip
        wanted = {"request_id": first["request_id"]}
        found = await http.get(f"{PATH}/{WANTS}", headers=bearer(ADMIN), params=wanted)
        assert [one["call_id"] for one in found.json()["records"]] == [first["call_id"]]
    read = [
        (one.record.method, one.record.target, one.record.outcome)
        for one in oldest_first(tmp_path / "audit", Wanted(kind="admin"))
        if one.record.route.startswith(PATH)
    ]
    assert ("GET", WANTS, "ok") in read
    assert not any(QUESTION in path.read_text() for path in (tmp_path / "audit").glob("*.jsonl"))


async def test_they_are_purged_by_hand_and_by_age(
    make_app: Callable[[], FastAPI], tmp_path: Path
) -> None:
    async with running(make_app()) as http:
        await ask(http, USER)
    root = tmp_path / "prompts"
    assert purge(root, WANTS, time.time()) == 0, "the hour is not over"
    later = {"before": time.time() + 7200}
    async with running(make_app()) as http:
        gone = await http.delete(f"{PATH}/{WANTS}", headers=bearer(ADMIN), params=later)
        assert gone.json() == {"files": 1}
        assert (await http.get(f"{PATH}/{WANTS}", headers=bearer(ADMIN))).json()["records"] == []


async def test_another_key_or_another_tenants_folder_reads_nothing(
    make_app: Callable[[], FastAPI], tmp_path: Path, key: str
) -> None:
    async with running(make_app()) as http:
        await ask(http, USER)
    root = tmp_path / "prompts"
    stranger = sealing(tmp_path / "elsewhere", new_master_key())
    assert read(root, WANTS, stranger) == ((), 1)
    folder_of(root, WANTS).rename(folder_of(root, DOES_NOT))
    assert read(root, DOES_NOT, sealing(tmp_path, key)) == ((), 1)


async def test_a_torn_end_costs_one_record(
    make_app: Callable[[], FastAPI], tmp_path: Path, key: str
) -> None:
    async with running(make_app()) as http:
        await ask(http, USER)
        await ask(http, USER)
    root = tmp_path / "prompts"
    [file] = folder_of(root, WANTS).iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    found = read(root, WANTS, sealing(tmp_path, key))
    assert (len(found.records), found.num_unreadable) == (1, 0)


def test_without_a_key_or_an_audit_log_a_server_does_not_start(tmp_path: Path) -> None:
    settings = load(
        file=None, env={}, flags={"tenant_policies": "[{name: a, record_prompts: true}]"}
    )
    with pytest.raises(ConfigError, match="set encryption_key"):
        open_privacy(settings, None, None)
    cache = replace(settings.engine.cache, encryption_key="env:NOT_THERE")
    settings = replace(settings, engine=replace(settings.engine, cache=cache))
    with pytest.raises(ConfigError, match="set audit_log"):
        open_privacy(settings, None, None)
