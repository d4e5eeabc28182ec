"""Several replicas as a server shows them, and taking them out and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI

from novacron.cluster.replicas_client import ReplicasClient
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineState
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

MakeHttp = Callable[[FastAPI], httpx2.AsyncClient]

CLUSTER = "/api/v1/llm/cluster"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
KEYS = ("sk-first", "sk-second")


@pytest.fixture
def engines() -> list[FakeEngineClient]:
    return []


@pytest.fixture
async def replicas(
    tokenizer: Tokenizer, engines: list[FakeEngineClient]
) -> AsyncIterator[ReplicasClient]:
    def make(name: str, config: EngineConfig) -> FakeEngineClient:
        engines.append(FakeEngineClient(tokenizer))
        engines[-1].engine_pid = 100 + len(engines)
        return engines[-1]

    client = ReplicasClient(EngineConfig(model=ModelConfig(data_parallel_size=2)), make)
    await client.start()
    await until(lambda: len(engines) == 2)
    yield client
    await client.close()


@pytest.fixture
def http(replicas: ReplicasClient, make_http: MakeHttp) -> httpx2.AsyncClient:
    return make_http(build_app(replicas, ServerConfig(), model_names=("fake",)))


async def test_the_status_lists_workers_and_replicas(
    http: httpx2.AsyncClient, engines: list[FakeEngineClient]
) -> None:
    await http.post("/v1/chat/completions", json=CHAT)
    status = (await http.get(f"{CLUSTER}/status")).json()
    assert status["cluster"]["status"] == "healthy"
    assert [(one["worker_id"], one["pid"], one["replica"]) for one in status["workers"]] == [
        ("replica-0-rank-0", 101, "replica-0"),
        ("replica-1-rank-0", 102, "replica-1"),
    ]
    [used] = [one for one in status["replicas"] if one["routed"]]
    assert used["routed"] == {"load": 1}
    assert used["last_decision"]["target"] == used["replica_id"]
    [[other, _]] = used["last_decision"]["alternatives"]
    assert {other, used["replica_id"]} == {"replica-0", "replica-1"}
    engines[0].die()
    status = (await http.get(f"{CLUSTER}/status")).json()
    assert status["cluster"]["status"] == "degraded"
    assert [one["state"] for one in status["replicas"]] == ["loading", "ready"]
    assert (await http.get("/ready")).status_code == 200
    report = (await http.get("/api/v1/llm/health")).json()
    assert any("replica-0 is loading" in warning for warning in report["warnings"])


async def test_metrics_tell_replicas_apart(http: httpx2.AsyncClient) -> None:
    for _ in range(2):
        await http.post("/v1/chat/completions", json=CHAT)
    text = (await http.get("/metrics")).text
    labels = 'model_name="fake",replica="replica-1"'
    assert f'novacron_replica_state{{{labels},state="ready"}} 1.0' in text
    assert f"novacron_replica_starts_total{{{labels}}} 1.0" in text
    assert text.count("novacron_routing_decisions_total{") >= 1
    resources = (await http.get("/api/v1/llm/metrics/resources")).json()
    assert resources["kv_cache"]["total_bytes"] == 2 * 64 * 16


async def test_a_replica_is_drained_resumed_and_restarted(
    http: httpx2.AsyncClient, engines: list[FakeEngineClient]
) -> None:
    drained = await http.post(f"{CLUSTER}/workers/replica-0/drain")
    assert drained.status_code == 200
    assert (drained.json()["replica"]["state"], drained.json()["finished"]) == ("unloaded", True)
    last = await http.post(f"{CLUSTER}/workers/replica-1-rank-0/drain", json={"restart": True})
    assert (last.status_code, last.json()["error"]["code"]) == (409, "last_replica")
    resumed = await http.post(f"{CLUSTER}/workers/replica-0/resume")
    assert resumed.json()["replica"]["state"] == "ready"
    again = await http.post(f"{CLUSTER}/workers/replica-1/drain", json={"restart": True})
    assert (again.json()["replica"]["state"], again.json()["replica"]["epoch"]) == ("ready", 1)
    unknown = await http.post(f"{CLUSTER}/workers/replica-7/drain", json={"wait": False})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "replica_not_found")


async def test_a_drain_need_not_be_waited_for_and_goes_on(
    http: httpx2.AsyncClient, engines: list[FakeEngineClient]
) -> None:
    for one in engines:
        one.step_s = 0.001
    call = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
    await until(lambda: any(one.submitted for one in engines))
    busy = next(place for place, one in enumerate(engines) if one.submitted)
    path = f"{CLUSTER}/workers/replica-{busy}/drain"
    begun = await http.post(path, json={"wait": False, "timeout": 60})
    assert (begun.status_code, begun.json()["finished"]) == (202, None)
    assert begun.json()["replica"]["state"] == "draining"
    assert (await call).status_code == 200
    await until(lambda: engines[busy].state is EngineState.UNLOADED)


async def test_only_the_operator_drains(replicas: ReplicasClient, make_http: MakeHttp) -> None:
    http = make_http(build_app(replicas, ServerConfig(api_key=KEYS), model_names=("fake",)))
    path = f"{CLUSTER}/workers/replica-0/drain"
    refused = await http.post(path, headers={"authorization": "Bearer sk-second"})
    assert refused.status_code == 403
    done = await http.post(path, headers={"authorization": "Bearer sk-first"})
    assert done.status_code == 200


async def test_the_only_engine_is_drained_by_force(
    client: FakeEngineClient, make_http: MakeHttp
) -> None:
    http = make_http(build_app(client, ServerConfig(), model_names=("fake",)))
    path = f"{CLUSTER}/workers/replica-0/drain"
    refused = await http.post(path)
    assert refused.status_code == 409
    assert "--data-parallel-size" in refused.json()["error"]["message"]
    done = await http.post(path, json={"force": True, "restart": True})
    assert done.json()["replica"]["state"] == "ready"
    assert (await http.post(f"{CLUSTER}/workers/replica-1/resume")).status_code == 404
    assert (await http.post(f"{CLUSTER}/workers/replica-0/resume")).status_code == 200
