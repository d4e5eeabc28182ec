"""The benchmark of fair shares, small, on a real server with several keys."""

from __future__ import annotations

import os

import pytest

from novacron.bench import fairness
from novacron.bench.scenario import FairnessScenario
from novacron.bench.target import TargetOptions
from novacron.errors import ConfigError

SMALL = FairnessScenario(
    num_tenants=3,
    factor=4,
    num_streams=4,
    seconds=1.5,
    share_prompt_tokens=32,
    prompt_tokens=32,
    output_tokens=8,
    num_requests=3,
    rounds=1,
    settling=0.2,
)


@pytest.mark.slow  # some seconds of load
async def test_shares_and_first_tokens_are_measured() -> None:
    options = TargetOptions(
        environment=os.environ,
        settings=("num_threads=1", "kv_cache_memory=64Mi", "max_num_seqs=6"),
    )
    result = await fairness.run(options, SMALL, lambda text: None)
    streams = [row.labels["streams"] for row in result.rows]
    assert streams == [4, 16, 4, 1, 1, 1, 1]
    assert all(row.metrics["served"].summary.p50 > 0 for row in result.rows[:3])
    assert all(row.metrics["ttft"].summary.count == 3 for row in result.rows[3:])
    shares, quiet, high = result.goals
    assert shares.value > 0.8, "by requests sent it would be 0.67"
    assert quiet.value > 0
    assert high.value > 0


async def test_a_server_at_a_url_is_refused() -> None:
    options = TargetOptions(environment={}, url="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="leave out --url"):
        await fairness.run(options, SMALL, lambda text: None)


def test_jains_index() -> None:
    assert fairness.jain([3, 3, 3]) == 1
    assert fairness.jain([3, 0, 0]) == pytest.approx(1 / 3)
    assert fairness.jain([4, 16, 4]) == pytest.approx(2 / 3, abs=1e-9)
    assert fairness.jain([0, 0]) == 0
