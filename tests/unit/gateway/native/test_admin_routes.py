"""Administration over HTTP, by an administrator's key, and what a new key can do then."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from novacron.accounts.accounts import Accounts
from novacron.accounts.data_policy import DataPolicy
from novacron.accounts.database.store import Store
from novacron.accounts.usage import UsageQuestion
from novacron.config.server import ServerConfig
from novacron.errors import AccountConflict
from novacron.gateway.app import build_app
from novacron.gateway.identity.configured_keys import ConfiguredKeys
from novacron.gateway.identity.key_hash import is_key_of
from novacron.gateway.identity.permissions import BUILT_IN
from novacron.gateway.identity.principal import AnyOf
from novacron.gateway.identity.stored_keys import StoredKeys
from novacron.gateway.native.admin_policies import PolicyRules
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

ADMIN = "/api/v1/llm/admin"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "ignore_eos": True}


@pytest.fixture
async def http(client: FakeEngineClient, accounts: Accounts) -> AsyncIterator[httpx2.AsyncClient]:
    authenticator = AnyOf(
        (
            ConfiguredKeys(("root",), alone=False),
            StoredKeys(accounts.directory, is_key_of, roles=BUILT_IN),
        )
    )
    app = build_app(
        client,
        ServerConfig(),
        model_names=("fake",),
        authenticator=authenticator,
        accounts=accounts,
    )
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=transport, base_url="http://localhost", headers=bearing("root")
        ) as http,
    ):
        yield http


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def send(
    http: httpx2.AsyncClient, method: str, path: str, body: object = None, *, status: int = 200
) -> Any:
    answer = await http.request(method, ADMIN + path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_tenant_from_its_beginning_to_its_bill(http: httpx2.AsyncClient) -> None:
    await send(http, "POST", "/tenants", {"id": "acme", "name": "Acme"})
    await send(http, "POST", "/users", {"id": "bob", "tenant_id": "acme"})
    made = await send(http, "POST", "/keys", {"tenant_id": "acme", "user_id": "bob"})
    await send(http, "PUT", "/quotas/user/bob", {"requests_per_minute": 1})
    await send(http, "PUT", "/prices/fake", {"output_micro": 500_000})
    headers = bearing(made["secret"])
    answers = [
        await http.post("/v1/chat/completions", json=CHAT, headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 429]
    told = answers[0].json()["usage"]
    async with asyncio.timeout(10):
        while not (rows := (await send(http, "GET", "/usage?by=user,key,model"))["usage"]):
            pass
    [row] = rows
    assert (row["user"], row["key"], row["model"]) == ("bob", made["key"]["id"], "fake")
    assert (row["requests"], row["output_tokens"]) == (1, told["completion_tokens"])
    assert row["cost"] == "0.000001"  # 2 tokens at half a millionth
    text = (await http.get(f"{ADMIN}/usage?by=user&format=csv")).text
    assert text.splitlines()[1].startswith("bob,1,")


async def test_who_calls_sees_what_he_has_used_and_nobody_else(
    http: httpx2.AsyncClient, store: Store
) -> None:
    secrets = {}
    for user in ("eve", "bob"):
        await send(http, "POST", "/users", {"id": user, "tenant_id": "default"})
        made = await send(http, "POST", "/keys", {"tenant_id": "default", "user_id": user})
        secrets[user] = made["secret"]
        for _ in range(1 if user == "eve" else 2):
            answer = await http.post(
                "/v1/chat/completions", json=CHAT, headers=bearing(secrets[user])
            )
            assert answer.status_code == 200
    path = "/api/v1/llm/usage?by=user,model"
    await send(http, "PUT", "/quotas/user/bob", {"tokens_per_day": 1000})
    await until(lambda: sum(row.requests for row in store.usage(UsageQuestion())) == 3)
    for user, count in (("eve", 1), ("bob", 2)):
        told = (await http.get(path, headers=bearing(secrets[user]))).json()
        [row] = told["usage"]
        assert (row["user"], row["requests"]) == (user, count)
    assert told["quotas"]["user:bob"]["tokens_per_day"] == 1000
    assert set(told["quotas"]) >= {"tenant:default", "user:bob"}
    text = (await http.get(path + "&format=csv", headers=bearing(secrets["eve"]))).text
    assert text.splitlines()[1].startswith("eve,fake,1,")
    assert (await http.get("/api/v1/llm/usage?by=planet")).status_code == 400


async def test_a_key_is_told_once_rotated_and_revoked(http: httpx2.AsyncClient) -> None:
    made = await send(http, "POST", "/keys", {"tenant_id": "default", "roles": ["viewer"]})
    [listed] = (await send(http, "GET", "/keys"))["keys"]
    assert listed == made["key"]
    assert "hash" not in listed
    models = "/v1/models"
    assert (await http.get(models, headers=bearing(made["secret"]))).status_code == 200
    id = made["key"]["id"]
    new = await send(http, "POST", f"/keys/{id}/rotate", {"overlap_seconds": 0})
    assert (await http.get(models, headers=bearing(made["secret"]))).status_code == 401
    assert (await http.get(models, headers=bearing(new["secret"]))).status_code == 200
    await send(http, "DELETE", f"/keys/{new['key']['id']}")
    assert (await http.get(models, headers=bearing(new["secret"]))).status_code == 401


async def test_whoever_does_not_administer_is_refused(http: httpx2.AsyncClient) -> None:
    made = await send(http, "POST", "/keys", {"tenant_id": "default", "roles": ["user"]})
    http.headers.update(bearing(made["secret"]))
    for method, path in (("GET", "/usage"), ("GET", "/keys"), ("POST", "/tenants")):
        await send(http, method, path, {"id": "mine"}, status=403)


async def test_users_of_disabled_tenants_are_nobody(http: httpx2.AsyncClient, store: Store) -> None:
    made = await send(http, "POST", "/keys", {"tenant_id": "default", "user_id": "ann"})
    changed = await send(http, "PATCH", "/tenants/default", {"disabled": True})
    assert changed["disabled"]
    answer = await http.get("/v1/models", headers=bearing(made["secret"]))
    assert answer.status_code == 401


async def test_a_role_is_changed_in_place_and_counts_for_who_has_it(
    http: httpx2.AsyncClient,
) -> None:
    role = {"name": "reader", "permissions": ["llm:metrics:read"], "description": "of figures"}
    await send(http, "POST", "/roles", role)
    changed = await send(http, "PATCH", "/roles/reader", {"permissions": ["llm:models:read"]})
    assert changed == {**role, "permissions": ["llm:models:read"]}
    made = await send(http, "POST", "/keys", {"tenant_id": "default", "roles": ["reader"]})
    assert (await http.get("/v1/models", headers=bearing(made["secret"]))).status_code == 200
    for method, path, body in (
        ("POST", "/roles", {"name": "admin", "permissions": ["llm:models:read"]}),
        ("POST", "/roles", {"name": "typist", "permissions": ["llm:model:read"]}),
        ("PATCH", "/roles/reader", {"permissions": ["llm:model:read"]}),
        ("POST", "/keys", {"tenant_id": "default", "scopes": ["llm:chat"]}),
    ):
        await send(http, method, path, body, status=400)
    await send(http, "PATCH", "/roles/nobody", {"description": "x"}, status=404)


async def test_changes_keep_what_they_do_not_name(http: httpx2.AsyncClient) -> None:
    body = {"id": "eve", "tenant_id": "default", "name": "Eve", "email": "eve@example.org"}
    await send(http, "POST", "/users", body)
    changed = await send(http, "PATCH", "/users/eve", {"roles": ["operator"]})
    assert (changed["name"], changed["email"], changed["roles"]) == (
        "Eve",
        "eve@example.org",
        ["operator"],
    )
    listed = await send(http, "GET", "/users?tenant=default")
    assert [user["id"] for user in listed["users"]] == ["ann", "eve"]
    assert await send(http, "DELETE", "/users/eve") == {"removed": "eve"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/tenants", {"id": "default"}, 409),
        ("POST", "/tenants", {"id": "a b"}, 400),
        ("POST", "/users", {"id": "x", "tenant_id": "nobody"}, 400),
        ("DELETE", "/tenants/default", None, 409),
        ("GET", "/tenants/nobody", None, 404),
        ("PUT", "/quotas/tenant/nobody", {}, 404),
        ("PUT", "/quotas/tenant/default", {"tokens_per_day": -1}, 400),
        ("PUT", "/quotas/planet/earth", {}, 400),
        ("GET", "/usage?by=planet", None, 400),
        ("GET", "/usage?by=hour,day", None, 400),
        ("POST", "/keys/key_none/rotate", {}, 404),
    ],
)
async def test_bad_input_is_told(
    http: httpx2.AsyncClient, method: str, path: str, body: object, status: int
) -> None:
    error = (await send(http, method, path, body, status=status))["error"]
    assert error["message"]


async def test_roles_and_quotas_are_listed(http: httpx2.AsyncClient) -> None:
    role = {"name": "scraper", "permissions": ["llm:metrics:read"], "description": ""}
    assert await send(http, "POST", "/roles", role) == role
    assert (await send(http, "GET", "/roles"))["roles"] == [role]
    await send(http, "PUT", "/quotas/tenant/default", {"models": ["fake"], "priority": "low"})
    assert (await send(http, "GET", "/quotas/tenant/default"))["models"] == ["fake"]
    assert list((await send(http, "GET", "/quotas"))["quotas"]) == ["tenant:default"]
    await send(http, "PUT", "/quotas/tenant/default", {})
    assert (await send(http, "GET", "/quotas"))["quotas"] == {}
    assert await send(http, "DELETE", "/roles/scraper") == {"removed": "scraper"}


def test_the_endpoints_are_named_in_the_documentation(
    client: FakeEngineClient, accounts: Accounts
) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "accounts.md").read_text()
    app = build_app(client, ServerConfig(), model_names=("fake",), accounts=accounts)
    paths = app.openapi()["paths"]
    served = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if path.startswith(ADMIN)
    }
    assert set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)`", page, re.M)) == served


async def test_the_policy_of_a_tenant_s_data(
    http: httpx2.AsyncClient, accounts: Accounts, store: Store
) -> None:
    await send(http, "POST", "/tenants", {"id": "acme"})
    await send(http, "GET", "/tenants/acme/policy", status=404)
    asked = {"retain": {"audit": "90d"}, "regions": ["eu-central"], "response_cache": "off"}
    made = await send(http, "PUT", "/tenants/acme/policy", asked)
    assert made == {"record_prompts": False, **asked}
    assert accounts.policies["acme"].regions == ("eu-central",), "it holds at once"
    assert await send(http, "GET", "/tenants/acme/policy") == made
    assert (await send(http, "GET", "/policies"))["policies"] == {"acme": made}
    wrong = {"retain": {"audit": "soon"}}
    assert (
        "audit"
        in (await send(http, "PUT", "/tenants/acme/policy", wrong, status=400))["error"]["message"]
    )
    keep = {"record_prompts": True}
    refused = await send(http, "PUT", "/tenants/acme/policy", keep, status=400)
    assert "encryption_key" in refused["error"]["message"]
    await send(http, "PUT", "/tenants/nobody/policy", {}, status=404)
    await send(http, "DELETE", "/tenants/acme/policy")
    assert "acme" not in accounts.policies
    assert store.policies.list() == {}


def test_a_policy_of_the_settings_is_not_changed_over_http() -> None:
    rules = PolicyRules(frozenset({"acme"}), can_keep_prompts=True)
    rules.check("other", DataPolicy(record_prompts=True))
    with pytest.raises(AccountConflict, match="tenant_policies"):
        rules.check("acme", DataPolicy())
