from __future__ import annotations

from typing import Any

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.gateway.identity.configured_keys import tenant_of
from novacron.records.cache_orders import ClearCache
from novacron.testing.fake_engine_client import FakeEngineClient

BASE = "/api/v1/llm/cache"
KEYS = ("sk-first", "sk-second", "sk-third")
SYSTEM = {"messages": [{"role": "system", "content": "You are a helpful assistant. " * 3}]}


@pytest.fixture
def guarded(client: FakeEngineClient, make_http) -> httpx2.AsyncClient:
    return make_http(build_app(client, ServerConfig(api_key=KEYS), model_names=("fake",)))


def key(number: int) -> dict[str, str]:
    return {"x-api-key": KEYS[number]}


async def test_a_prefix_is_pinned_and_warmed_listed_and_unpinned(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    answer = await http.post(f"{BASE}/pin", json={**SYSTEM, "name": "system"})
    assert answer.status_code == 200, answer.text
    pin, warmed = answer.json()["pin"], answer.json()["warmed"]
    [request] = client.submitted
    assert warmed["num_tokens"] == len(request.prompt_token_ids)
    assert pin["num_blocks"] == warmed["num_tokens"] // 16
    assert pin["num_tokens"] == 16 * pin["num_blocks"]
    assert request.priority > 1000
    assert (await http.get(f"{BASE}/pins")).json()["pins"] == [pin]
    assert (await http.post(f"{BASE}/unpin", json={"name": "system"})).json() == {"name": "system"}
    gone = await http.post(f"{BASE}/unpin", json={"name": "system"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "pin_not_found")


async def test_a_prefix_without_a_name_has_always_the_same(http: httpx2.AsyncClient) -> None:
    names = [
        (await http.post(f"{BASE}/pin", json={**body, "warm": False})).json()["pin"]["name"]
        for body in (SYSTEM, SYSTEM, {"prompt": "other words " * 9})
    ]
    assert names[0] == names[1] != names[2]
    assert len((await http.get(f"{BASE}/pins")).json()["pins"]) == 2


async def test_warming_is_a_prompt_without_an_answer_opened(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    answer = (await http.post(f"{BASE}/warm", json=SYSTEM)).json()
    assert answer["computed_tokens"] == answer["num_tokens"] > 16
    chat = {**SYSTEM, "max_tokens": 1}
    chat["messages"] = [*SYSTEM["messages"], {"role": "user", "content": "hi"}]
    await http.post("/v1/chat/completions", json=chat)
    warm, asked = (request.prompt_token_ids for request in client.submitted)
    assert asked[: len(warm)] == warm


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("pin", {}, "prompt or messages"),
        ("warm", {**SYSTEM, "prompt": "x"}, "prompt or messages"),
        ("pin", {"prompt": "short"}, "Pin at least so many"),
        ("pin", {**SYSTEM, "name": "a b"}, "name"),
        ("pin", {**SYSTEM, "ttl": 0}, "ttl"),
        ("pin", {**SYSTEM, "cache_scope": "public", "cache_salt": "s"}, "cache_salt"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    http: httpx2.AsyncClient, client: FakeEngineClient, path: str, body: dict[str, Any], word: str
) -> None:
    answer = await http.post(f"{BASE}/{path}", json=body)
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]
    assert client.submitted == []


async def test_a_pin_above_the_limit_is_refused_before_it_is_computed(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    answer = await http.post(f"{BASE}/pin", json={"prompt": list(range(3, 100)) * 12})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "pin_limit")
    assert client.submitted == []


async def test_tenants_do_not_see_each_other(
    guarded: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    pinned = await guarded.post(f"{BASE}/pin", json={**SYSTEM, "name": "a"}, headers=key(1))
    assert pinned.status_code == 200
    assert client.submitted[0].cache_salt == tenant_of(KEYS[1]) + "\x00"
    assert (await guarded.get(f"{BASE}/pins", headers=key(2))).json()["pins"] == []
    stolen = await guarded.post(f"{BASE}/unpin", json={"name": "a"}, headers=key(2))
    assert stolen.status_code == 404
    mine = await guarded.post(f"{BASE}/unpin", json={"name": "a"}, headers=key(1))
    assert mine.status_code == 200


async def test_what_concerns_everyone_is_the_operators(guarded: httpx2.AsyncClient) -> None:
    public = {**SYSTEM, "name": "all", "cache_scope": "public"}
    for response, code in (
        (await guarded.post(f"{BASE}/pin", json=public, headers=key(1)), "forbidden"),
        (await guarded.delete(BASE, headers=key(1)), "permission_denied"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (403, code)
    assert (await guarded.delete(BASE)).status_code == 401
    answer = await guarded.post(f"{BASE}/pin", json=public, headers=key(0))
    assert answer.json()["pin"]["public"]
    [seen] = (await guarded.get(f"{BASE}/pins", headers=key(2))).json()["pins"]
    assert seen["name"] == "all"
    unpin = {"name": "all", "cache_scope": "public"}
    refused = await guarded.post(f"{BASE}/unpin", json=unpin, headers=key(1))
    assert refused.status_code == 403
    assert (await guarded.post(f"{BASE}/unpin", json=unpin, headers=key(0))).status_code == 200
    assert (await guarded.delete(BASE, headers=key(0))).json()["blocks"] == {"device": 0, "ram": 0}


async def test_clearing_names_its_levels(http: httpx2.AsyncClient) -> None:
    dry = await http.delete(BASE, params={"level": ["ram"], "dry_run": True})
    assert dry.json() == {"blocks": {"ram": 0}, "dry_run": True}
    unknown = await http.delete(BASE, params={"level": "tape"})
    assert unknown.status_code == 400
    assert "device, ram" in unknown.json()["error"]["message"]


async def test_clearing_names_a_tenant(
    guarded: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    await guarded.post(f"{BASE}/warm", json=SYSTEM, headers=key(1))
    [request] = client.submitted
    tenant = {"tenant": tenant_of(KEYS[1])}
    assert (await guarded.delete(BASE, params=tenant, headers=key(1))).status_code == 403
    assert (await guarded.delete(BASE, params=tenant, headers=key(0))).status_code == 200
    assert client.asked[-1] == ClearCache(scope=request.cache_scope)
    assert request.cache_scope
    assert (await guarded.delete(BASE, params={"tenant": ""}, headers=key(0))).status_code == 400


async def test_an_engine_that_is_gone_says_so(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.die()
    for response in (
        await http.post(f"{BASE}/pin", json=SYSTEM),
        await http.get(f"{BASE}/pins"),
        await http.delete(BASE),
    ):
        assert response.status_code == 503


async def test_the_report_is_of_the_window(http: httpx2.AsyncClient) -> None:
    await http.post("/v1/chat/completions", json={**SYSTEM, "max_tokens": 2})
    report = (await http.get(f"{BASE}/report", params={"window": 60})).json()
    assert report["metrics"]["prompt_tokens"] > 16
    assert report["scores"] == {"reuse": 0.0, "health": 1.0}
    assert (await http.get(f"{BASE}/report", params={"window": 0})).status_code == 400
