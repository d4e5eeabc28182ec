"""`novacron bench watch` from the command line to its file, on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.bench.cli import bench
from novacron.bench.result import load
from novacron.kernels.native.library import NativeContext, NativeUnavailable

pytestmark = pytest.mark.slow  # tens of seconds: whole runs of a benchmark


def watch(*arguments: object) -> Result:
    given = ("watch", "--set", "num_threads=1", "--set", "kv_cache_memory=32Mi", *arguments)
    return CliRunner().invoke(bench, list(map(str, given)))


@pytest.fixture(autouse=True)
def native() -> None:
    try:
        NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")


def test_errors_in_every_layer_are_noticed_and_the_cost_is_told(tmp_path: Path) -> None:
    outcome = watch(
        "--set", "quantization=int8", "--tasks", "capitals,addition", "--share", 1.0,
        "--num-requests", 130, "--num-after", 30, "--trials", 1, "--max-tokens", 16,
        "--matrices", "model.layers.2.mlp.down_proj", "--cost-rounds", 3, "--cost-slice", 0.1,
        "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    result = load(tmp_path / "r.json")
    sound = result.row(case="sound").metrics
    assert sound["scored"].summary.mean == 130
    assert len(sound["figure"].samples) == 130
    cases = {row.labels["case"]: row.metrics for row in result.rows[1:-1]}
    assert list(cases) == [
        *(f"layers.{layer} x 1.2" for layer in range(6)),
        "layers.2.mlp.down_proj x 1.2",
    ]
    for layer in range(6):
        metrics = cases[f"layers.{layer} x 1.2"]
        assert metrics["noticed"].summary.mean == 1
        assert metrics["noticed_after"].summary.mean <= 30
    cost = result.row(case="cost").metrics
    assert cost["with_it"].summary.count == cost["without"].summary.count == 3
    assert 0 < cost["low"].summary.mean <= cost["throughput"].summary.mean
    assert result.goals[1].met


def test_what_cannot_be_measured_is_said() -> None:
    few = ("--num-requests", 20, "--share", 1.0, "--cost-rounds", 0, "--tasks", "capitals")
    outcome = watch("--set", "quantization=int8", *few)
    assert "larger --num-requests" in str(outcome.exception)
    unrounded = watch(*few[2:], "--num-requests", 110, "--num-after", 5, "--max-tokens", 4)
    assert "quantization=int8" in str(unrounded.exception)


@pytest.mark.parametrize(("level", "seed"), [("int8", 1), ("int8", 2), ("int4", 1)])
def test_the_proof(level: str, seed: int, tmp_path: Path) -> None:
    """A layer whose scales are wrong by 20 % is noticed within 400 requests of which 5 % are
    scored; 20,000 requests to the sound model raise no alarm."""
    outcome = watch(
        "--set", f"quantization={level}", "--seed", seed, "--cost-rounds", 0, "--trials", 3,
        "--check", "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    assert load(tmp_path / "r.json").row(case="sound").metrics["requests"].summary.mean == 20_000
