"""The benchmark that needs the real thing: three ways to one engine, side by side."""

from __future__ import annotations

import os

from novacron.bench import throughput
from novacron.bench.scenario import ThroughputScenario
from novacron.bench.target import TargetOptions


async def test_throughput_drives_core_process_and_http_alike() -> None:
    options = TargetOptions(
        environment=os.environ, settings=("num_threads=1", "kv_cache_memory=64Mi")
    )
    scenario = ThroughputScenario(num_streams=(3,), prompt_tokens=20, output_tokens=6, repeats=2)
    result = await throughput.run(options, scenario, lambda text: None)
    assert [row.labels["through"] for row in result.rows] == [
        "engine core",
        "engine process",
        "http",
    ]
    assert result.rows[0].metrics["share"].samples == (1.0, 1.0)
    assert all(share > 0 for share in result.rows[2].metrics["share"].samples)
    assert all(row.metrics["output_rate"].summary.p50 > 0 for row in result.rows)
    assert len(result.goals) == 4
    assert result.target["settings"]["num_threads"] == 1
    assert "mbu" in result.facts["distance to the limit of the machine"]
