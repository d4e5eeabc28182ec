"""The benchmark that needs the real thing: three ways to one engine, side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from novacron.bench import gateway, speculation, throughput
from novacron.bench.gateway import GatewayScenario
from novacron.bench.scenario import SpeculationScenario, ThroughputScenario
from novacron.bench.target import TargetOptions
from novacron.demo import bundled_model_path
from novacron.testing.deeper_models import make_deeper_model


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


@pytest.mark.slow
async def test_speculation_changes_no_answer_of_a_server(tmp_path: Path) -> None:
    folder = make_deeper_model(bundled_model_path(), tmp_path, num_layers=12)
    options = TargetOptions(
        model=str(folder),
        environment=os.environ,
        settings=("num_threads=1", "kv_cache_memory=64Mi", "max_model_len=1024"),
    )
    scenario = SpeculationScenario(
        methods=("draft",), num_streams=(2,), num_questions=2, output_tokens=24, repeats=1
    )
    result = await speculation.run(options, scenario, lambda text: None)
    assert result.goals[0].met, "all answers are the same"
    draft = result.row(method="draft", streams=2).metrics
    assert draft["right"].summary.p50 > 0.9, "the models agree on every token"
    assert (
        draft["tokens_per_step"].samples
        > result.row(method="off", streams=2).metrics["tokens_per_step"].samples
    )
    assert draft["drafting"].summary.p50 > 0


@pytest.mark.slow
async def test_the_gateway_is_timed_with_accounts_and_without_and_its_memory_watched() -> None:
    scenario = GatewayScenario(
        rate=20.0, seconds=1.0, rounds=1, num_keys=2, num_replicas=2, num_watched=200, num_streams=4
    )
    result = await gateway.run(TargetOptions(environment=os.environ), scenario, lambda text: None)
    steady = [row.metrics for row in result.rows if row.labels["load"] == "steady"]
    assert len(steady) == 2
    assert steady[0]["requests"].samples == steady[1]["requests"].samples
    assert all(row["time"].summary.p50 > 0 for row in steady)
    assert [goal.unit for goal in result.goals] == ["ms", "ms", ""]
    assert all(row.metrics["memory"].summary.mean > 0 for row in result.rows[2:])
