"""`novacron bench accuracy --against` from the command line to its file, on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.bench.cli import bench
from novacron.bench.result import load


def accuracy(*arguments: object) -> Result:
    given = ("accuracy", "--set", "num_threads=1", "--set", "kv_cache_memory=32Mi", *arguments)
    return CliRunner().invoke(bench, list(map(str, given)))


@pytest.mark.slow
def test_a_rounded_model_is_compared_with_the_whole(tmp_path: Path) -> None:
    outcome = accuracy(
        "--set", "quantization=int4", "--against", "dtype=float32", "--against", "num_threads=1",
        "--against", "kv_cache_memory=32Mi", "--num-documents", 37, "--tasks", "capitals",
        "--num-examples", 4, "--speed-rounds", 1, "--num-streams", 2, "--output-tokens", 8,
        "--least-quality", 0.5, "--check", "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    result = load(tmp_path / "r.json")
    assert result.benchmark == "quality"
    quality = result.row(measure="quality", of="all").metrics["compared"].summary.mean
    assert 0.9 < quality < 1.1
    assert result.row(measure="KL (mnat)", of="all").metrics["least"].summary.mean > 0
    weights = result.row(measure="bytes", of="weights").metrics["compared"].summary.mean
    assert 0.1 < weights < 0.25
    assert result.row(measure="accuracy", of="capitals").metrics["variant"].summary.count == 4
    assert result.row(measure="decode speed").metrics["compared"].summary.mean > 0
    assert result.facts["documents"] == 37
    [goal] = result.goals
    assert goal.met


def test_a_text_of_the_user_is_compared_on_without_tasks(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris. " * 40)
    outcome = accuracy(
        "--against", "dtype=float32", "--corpus", text, "--window", 64, "--num-documents", 4,
        "--speed-rounds", 0, "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    result = load(tmp_path / "r.json")
    assert result.facts["corpus"] == "text.txt"
    assert result.facts["judged tokens"] == 4 * 63
    assert {row.labels["measure"] for row in result.rows}.isdisjoint({"accuracy", "decode speed"})


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    outcome = accuracy("--against", "nonsense=1")
    assert outcome.exit_code != 0
    assert "nonsense=1" in str(outcome.exception) + outcome.output
    text = tmp_path / "text.txt"
    text.write_text("word " * 9000)
    outcome = accuracy(
        "--against", "dtype=float32", "--corpus", text, "--window", 5000, "--speed-rounds", 0
    )
    assert outcome.exit_code != 0
    assert "--window" in str(outcome.exception) + outcome.output
