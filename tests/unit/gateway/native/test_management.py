from __future__ import annotations

import asyncio
import os

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


async def test_the_cluster_is_this_server(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    status = (await http.get(f"{BASE}/cluster/status")).json()
    assert status["cluster"]["total_workers"] == status["cluster"]["active_workers"] == 1
    [worker] = status["workers"]
    assert (worker["status"], worker["pid"]) == ("active", os.getpid())
    assert (await http.get(f"{BASE}/cluster/workers")).json()["workers"] == [worker]
    client.die()
    status = (await http.get(f"{BASE}/cluster/status")).json()
    assert status["cluster"]["active_workers"] == 0
    assert status["cluster"]["num_restarts"] == 1
    assert status["workers"][0]["status"] == "starting"


async def test_metrics_have_the_fields_that_the_seeds_script_reads(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.step_s = 0.001
    await http.post(f"{BASE}/chat/completions", json=CHAT)
    metrics = (await http.get(f"{BASE}/metrics")).json()
    assert metrics["active_requests"] == 0
    inference = metrics["inference_metrics"]
    assert inference["latency"]["avg_per_token_latency"][-1] > 0
    assert inference["cache_performance"]["overall_hit_rate"][-1] == 0.0
    assert inference["quality_metrics"]["quality_score"][-1] == 0.9
    assert inference["requests_by_finish_reason"] == {"length": 1}
    alone = (await http.get(f"{BASE}/metrics/inference")).json()
    assert alone["latency"].keys() == inference["latency"].keys()


async def test_nothing_is_invented_before_anything_ran(http: httpx2.AsyncClient) -> None:
    inference = (await http.get(f"{BASE}/metrics/inference")).json()
    assert inference["latency"]["avg_per_token_latency"] == []
    assert inference["cache_performance"]["overall_hit_rate"] == []


async def test_resources_are_those_of_this_process(http: httpx2.AsyncClient) -> None:
    resources = (await http.get(f"{BASE}/metrics/resources")).json()
    [process] = resources["processes"]
    assert process["pid"] == os.getpid()
    assert process["memory_bytes"] > 10**6
    assert resources["machine"]["memory_total_bytes"] > 10**8
    assert resources["kv_cache"]["num_blocks"] == 64


async def test_health_by_component(http: httpx2.AsyncClient, client: FakeEngineClient) -> None:
    report = (await http.get(f"{BASE}/health")).json()
    assert report["status"] == "healthy"
    assert set(report["component_health"].values()) == {"healthy"}
    client.enter(EngineState.DRAINING)
    degraded = await http.get(f"{BASE}/health")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    client.die(for_good=True)
    dead = await http.get(f"{BASE}/health")
    assert (dead.status_code, dead.json()["status"]) == (503, "unhealthy")
    assert dead.json()["critical"]
