"""novacron cache: from a made-up trace to settings that the server reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from novacron.cli.main import cli
from novacron.config.kv_tier_list import read_tier_list


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["cache", *map(str, arguments)])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    done = call("trace", "--workload", "scan", "--num-requests", 600, "--output", path)
    assert done.exit_code == 0, done.output
    assert "600 requests" in done.output
    return path


def test_every_policy_and_the_optimum_side_by_side(trace: Path) -> None:
    arguments = ("simulate", "--trace", trace, "--ram", "2Gi", "--compare")
    done = call(*arguments, "--json")
    told = json.loads(done.output)
    assert set(told["policies"]) == {"lru", "lfu", "ttl", "arc", "cost", "learned"}
    rates = [outcome["hit_rate"] for outcome in told["policies"].values()]
    assert 0 < max(rates) <= told["belady_hit_rate"]
    table = call(*arguments).output
    assert "Belady's optimum" in table
    assert "learned" in table


def test_tiers_together_find_more(trace: Path) -> None:
    done = call(
        "simulate", "--trace", trace, "--device", "1Gi", "--ram", "2Gi", "--disk", "8Gi", "--json"
    )
    [outcome] = json.loads(done.output)["policies"].values()
    assert [tier["kind"] for tier in outcome["tiers"]] == ["device", "ram", "disk"]
    assert outcome["hit_rate"] == pytest.approx(sum(t["hit_rate"] for t in outcome["tiers"]))


def test_a_proposal_is_what_the_server_reads(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "kv.yaml"
    done = call(
        "tune", "--trace", trace, "--ram", "4Gi", "--disk", 0, "--current-ram", "256Mi",
        "--budget", 4, "--output", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "gain:" in done.output
    settings = dict(read_tier_list(yaml.safe_load(out.read_text())["kv_tiers"]))
    assert settings["kv_eviction_policy"] in ("lru", "lfu", "arc", "cost", "learned")
    assert settings["kv_disk_size"] == 0


def test_mistakes_are_told(trace: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for arguments, message in (
        (("simulate", "--trace", empty), "has no requests"),
        (("simulate", "--trace", trace, "--ram", "0"), "no tier"),
        (("simulate", "--trace", trace, "--ram", "1Ki"), "a block of 256 tokens takes"),
        (("simulate", "--trace", trace, "--ram", "lots"), "is not a size"),
        (("simulate", "--trace", trace, "--weights", "mood=1"), "is no weight"),
        (("tune", "--trace", trace, "--ram", "0", "--disk", "0"), "nothing to tune"),
        (("trace", "--num-requests", 0, "--output", empty), "give a positive number"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2, done.output
        assert message in done.output
