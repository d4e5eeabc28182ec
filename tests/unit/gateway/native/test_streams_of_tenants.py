"""A stream belongs to its tenant: its id, which clients choose and others may guess, is no key."""

from __future__ import annotations

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

KEYS = ("operator-key", "one-key", "other-key")
OPERATOR, ONE, OTHER = ({"x-api-key": key} for key in KEYS)
BASE = "/api/v1/llm"
CALL = {"prompt": "hi", "request_id": "my-call"}


@pytest.fixture
def http(client: FakeEngineClient, make_http) -> httpx2.AsyncClient:
    return make_http(build_app(client, ServerConfig(api_key=KEYS), model_names=("fake",)))


async def test_another_tenant_neither_reads_a_stream_nor_learns_of_it(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.post(f"{BASE}/completions", json=CALL, headers=ONE)
    assert answer.status_code == 200
    assert (await http.get(f"{BASE}/stream/my-call", headers=ONE)).status_code == 200
    unknown = await http.get(f"{BASE}/stream/never-was", headers=OTHER)
    for headers in (OTHER, OPERATOR):
        refused = await http.get(f"{BASE}/stream/my-call", headers=headers)
        assert refused.status_code == 404
        assert refused.text == unknown.text.replace("never-was", "my-call")
    again = await http.post(f"{BASE}/completions", json=CALL, headers=ONE)
    assert again.status_code == 400, "the id is in use"
    same_id = await http.post(f"{BASE}/completions", json=CALL, headers=OTHER)
    assert same_id.status_code == 200, "another's id is nothing to this tenant"


async def test_only_its_tenant_and_operators_end_a_call(
    client: FakeEngineClient, http: httpx2.AsyncClient
) -> None:
    call = {**CALL, "max_tokens": 1000, "ignore_eos": True, "background": True}
    for headers in (ONE, OTHER):
        accepted = await http.post(f"{BASE}/completions", json=call, headers=headers)
        assert accepted.status_code == 202, accepted.text
    await until(lambda: len(client.submitted) == 2)
    running = [request.request_id for request in client.submitted]

    async def cancel(headers: dict[str, str]) -> int:
        answer = await http.delete(f"{BASE}/requests/my-call", headers=headers)
        return answer.status_code

    assert await cancel(ONE) == 200
    assert client.aborted == running[:1]
    await http.get(f"{BASE}/stream/my-call", headers=ONE)  # to its end
    assert await cancel(ONE) == 404
    assert await cancel(OPERATOR) == 200
    assert client.aborted == running
