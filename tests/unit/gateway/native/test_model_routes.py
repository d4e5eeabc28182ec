from __future__ import annotations

import asyncio

import httpx2
import pytest

from novacron.engine.client import EngineState
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

BASE = "/api/v1/llm"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def test_the_model_is_listed_as_the_seeds_script_expects(http: httpx2.AsyncClient) -> None:
    models = (await http.get(f"{BASE}/models")).json()["models"]
    assert [(model["id"], model["status"]) for model in models] == [
        ("fake", "loaded"),
        ("org/alias", "loaded"),
    ]
    model = (await http.get(f"{BASE}/models/org/alias")).json()
    assert model["info"]["architecture"] == "FakeForCausalLM"
    assert (await http.get(f"{BASE}/models/other")).status_code == 404


async def test_loading_what_is_loaded_changes_nothing(http: httpx2.AsyncClient) -> None:
    body = {"quantization": "int8", "worker_count": 64, "performance_profile": "balanced"}
    answer = await http.post(f"{BASE}/models/fake/load", json=body)
    assert answer.status_code == 200
    assert answer.json()["status"] == "loaded"
    assert set(answer.json()["ignored"]) == set(body)
    assert (await http.post(f"{BASE}/models/fake/load")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/unload"), ("DELETE", "/unload"), ("DELETE", "")],
)
async def test_unloading_refuses_new_work_until_the_model_is_loaded_again(
    http: httpx2.AsyncClient, client: FakeEngineClient, method: str, path: str
) -> None:
    unloaded = await http.request(method, f"{BASE}/models/org/alias{path}")
    assert unloaded.status_code in (200, 202)
    await until(lambda: client.state is EngineState.UNLOADED)
    refused = await http.post(f"{BASE}/chat/completions", json=CHAT)
    assert refused.status_code == 503
    assert (await http.get(f"{BASE}/models/fake")).json()["status"] == "unloaded"
    assert (await http.get("/ready")).status_code == 503
    loading = await http.post(f"{BASE}/models/fake/load")
    assert loading.json()["status"] in ("loading", "loaded")
    await client.wait_ready()
    assert (await http.post(f"{BASE}/chat/completions", json=CHAT)).status_code == 200


async def test_running_work_is_finished_before_the_model_goes(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.step_s = 0.001
    running = asyncio.create_task(http.post(f"{BASE}/chat/completions", json=CHAT))
    await until(lambda: client.submitted)
    draining = await http.post(f"{BASE}/models/fake/unload")
    assert draining.status_code == 202
    assert draining.json()["status"] == "draining"
    assert (await running).json()["choices"][0]["finish_reason"] == "length"
