"""`novacron bench cache-faults` from the command line to its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from novacron.bench.cache_fault_job import BASELINE
from novacron.bench.cli import bench
from novacron.bench.flaky_proxy import FAULTS
from novacron.bench.result import load
from novacron.testing.redis_server import find_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server() is None, reason="there is no redis-server"),
]


def test_kills_and_faults_are_counted_and_every_goal_is_met(tmp_path: Path) -> None:
    given = (
        "cache-faults", "--set", "num_threads=1", "--kills", 10, "--kills-with-room", 5,
        "--power-cuts", 5, "--kills-beside", 3, "--rounds", 1, "--chances", "1.0",
        "--output", tmp_path / "r.json", "--check",
    )  # fmt: skip
    outcome = CliRunner().invoke(bench, list(map(str, given)))
    assert outcome.exit_code == 0, outcome.output
    result = load(tmp_path / "r.json")
    assert [row.labels["what"] for row in result.rows][4:] == [
        BASELINE,
        *(f"Redis, {fault}" for fault in (*FAULTS, "refuse")),
    ]
    assert result.rows[0].metrics["cycles"].summary.p50 == 10
    assert sum(row.metrics["faults"].summary.p50 for row in result.rows[5:]) > 0
    assert len(result.goals) == 6
