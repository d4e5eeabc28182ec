"""`novacron bench kv-codecs` from the command line to its file, and what a server makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron import LLM
from novacron.bench.cli import bench
from novacron.bench.result import load
from novacron.errors import ConfigError

pytestmark = pytest.mark.slow  # tens of seconds: whole runs of a benchmark


def kv_codecs(*arguments: object) -> Result:
    given = ("kv-codecs", "--set", "num_threads=1", "--set", "kv_cache_memory=64Mi", *arguments)
    return CliRunner().invoke(bench, list(map(str, given)))


def test_levels_are_measured_and_a_profile_asks_for_it(tmp_path: Path) -> None:
    outcome = kv_codecs(
        "--set", f"cache_dir={tmp_path}", "--levels", "int8,int8/int4", "--num-documents", 40,
        "--repeats", 1, "--tasks", "retrieval_128", "--num-examples", 3, "--max-tokens", 12,
        "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    result = load(tmp_path / "r.json")
    int8, finer = (result.row(level=level, of="blocks") for level in ("int8", "int8/int4"))
    assert int8.metrics["ratio"].summary.mean < finer.metrics["ratio"].summary.mean
    assert 0 < int8.metrics["key_error"].summary.mean < 0.02
    assert int8.metrics["key_error"] == finer.metrics["key_error"]
    assert 0.02 < finer.metrics["value_error"].summary.mean < 0.25
    assert int8.metrics["top1"].summary.mean >= 0.99
    answers = result.row(level="int8", of="answers to 3 questions")
    assert answers.metrics["from_tier"].summary.mean > 0.8
    assert answers.metrics["accuracy"].summary.count == 3

    with pytest.raises(ConfigError, match=r"int8 .* of \d+ tokens, .*500 are needed"):
        LLM(cache_dir=str(tmp_path), kv_tier_profile="ladder", kv_cache_memory=2**24)


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    assert "no level int3" in str(kv_codecs("--levels", "int3").exception)
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris. " * 40)
    short = kv_codecs("--corpus", text, "--window", 24)
    assert "full block of 16 tokens" in str(short.exception)
    rounded = kv_codecs("--set", "kv_cache_dtype=int8", "--corpus", text, "--window", 128)
    assert "rounded twice" in str(rounded.exception)
