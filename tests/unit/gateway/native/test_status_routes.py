from __future__ import annotations

import os

import httpx2
import msgspec

from novacron.engine.client import EngineState
from novacron.gateway.native.cache_status import cache_status
from novacron.records.codec_totals import CodecTotals
from novacron.records.latency_counts import LatencyCounts
from novacron.records.output import EngineStats, TierStats
from novacron.testing.fake_engine_client import FakeEngineClient

BASE = "/api/v1/llm"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def test_the_cluster_is_this_server(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.engine_pid = os.getpid()
    status = (await http.get(f"{BASE}/cluster/status")).json()
    assert status["cluster"]["total_workers"] == status["cluster"]["active_workers"] == 1
    [worker] = status["workers"]
    assert (worker["status"], worker["pid"]) == ("active", os.getpid())
    assert (await http.get(f"{BASE}/cluster/workers")).json()["workers"] == [worker]
    [replica] = status["replicas"]
    assert (replica["replica_id"], replica["state"], replica["epoch"]) == ("replica-0", "ready", 0)
    client.die()
    status = (await http.get(f"{BASE}/cluster/status")).json()
    assert status["cluster"]["active_workers"] == 0
    assert status["cluster"]["num_restarts"] == 1
    assert status["workers"][0]["status"] == "starting"


async def test_one_machine_has_one_worker_and_says_so(http: httpx2.AsyncClient) -> None:
    as_it_is = await http.post(f"{BASE}/cluster/scale", json={"worker_count": 1})
    assert as_it_is.json() == (await http.get(f"{BASE}/cluster/status")).json()
    more = await http.post(f"{BASE}/cluster/scale", json={"worker_count": 4})
    assert (more.status_code, more.json()["error"]["code"]) == (501, "unsupported")
    assert "--data-parallel-size 2" in more.json()["error"]["message"]
    both = {"worker_count": 1, "replica_count": 1}
    assert (await http.post(f"{BASE}/cluster/scale", json=both)).status_code == 400
    assert (await http.post(f"{BASE}/cluster/scale", json={})).status_code == 400


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


async def test_the_cache_level_by_level(http: httpx2.AsyncClient, client: FakeEngineClient) -> None:
    empty = (await http.get(f"{BASE}/cache/status")).json()
    assert (empty["overall_hit_rate"], empty["tiers"]) == (None, [])
    disk = TierStats(kind="disk", capacity_bytes=1000, used_bytes=600, num_blocks=5, hit_tokens=30)
    stats = EngineStats(
        num_blocks=10,
        num_used_blocks=3,
        num_cached_blocks=2,
        prefix_queries_tokens=100,
        prefix_hits_tokens=50,
        kv_tiers=(disk,),
        num_tier_waits=2,
        tier_wait_s=0.5,
        tier_lookups=LatencyCounts.of(0.0001),
    )
    status = msgspec.to_builtins(cache_status(stats))
    assert status.keys() == empty.keys()
    assert status["overall_hit_rate"] == 0.5
    assert (status["device"]["free_blocks"], status["device"]["hit_rate"]) == (5, 0.2)
    assert (status["tiers"][0]["kind"], status["tiers"][0]["hit_rate"]) == ("disk", 0.3)
    assert status["loads"]["wait_seconds"] == 0.5
    assert status["loads"]["lookup"]["calls"] == 1
    assert status["tiers"][0]["codec"] is None
    assert status["tiers"][0]["latencies"]["load"] == {
        "calls": 0,
        "p50_seconds": None,
        "p99_seconds": None,
    }
    codec = CodecTotals(level="int8", num_encoded=2, raw_bytes=30, encoded_bytes=20, error=0.02)
    told = cache_status(EngineStats(kv_tiers=(msgspec.structs.replace(disk, codec=codec),)))
    found = told.tiers[0].codec
    assert found is not None
    assert (found.level, found.ratio, found.mean_error) == ("int8", 1.5, 0.01)
