from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.bench.cli import bench
from novacron.bench.result import load
from novacron.testing.fake_openai_server import FakeOpenAIServer


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(bench, list(map(str, arguments)), catch_exceptions=False)


def _latency(server: FakeOpenAIServer, *more: object) -> Result:
    return _invoke(
        "latency", "--url", server.url, "--prompt-tokens", "4,8", "--output-tokens", 2,
        "--repeats", 1, *more,
    )  # fmt: skip


def test_a_table_is_printed_and_a_file_written(server: FakeOpenAIServer, tmp_path: Path) -> None:
    outcome = _latency(server, "--output", tmp_path / "r.json")
    assert outcome.exit_code == 0
    assert "novacron bench latency" in outcome.stdout
    assert [row.labels["prompt tokens"] for row in load(tmp_path / "r.json").rows] == [4, 8]


def test_two_results_are_compared(server: FakeOpenAIServer, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        _latency(server, "--output", tmp_path / name)
    outcome = _invoke("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert outcome.exit_code == 0
    assert "after / before" in outcome.stdout


def test_a_missed_goal_is_an_exit_code_if_asked_for(server: FakeOpenAIServer) -> None:
    server.answer = lambda body: f"answer {len(server.bodies)}"
    arguments = ("cache", "--url", server.url, "--prefix-tokens", 8, "--repeats", 1)
    assert _invoke(*arguments).exit_code == 0
    assert _invoke(*arguments, "--check").exit_code == 1


def test_a_scenario_file_gives_options_and_flags_win(
    server: FakeOpenAIServer, tmp_path: Path
) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text("[latency]\nprompt-tokens = [3]\noutput-tokens = [2]\nrepeats = 5\n")
    outcome = _invoke(
        "--scenario", scenario, "latency", "--url", server.url, "--repeats", 1,
        "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.exit_code == 0
    asked = load(tmp_path / "r.json").scenario
    assert (asked["prompt_tokens"], asked["repeats"]) == ([3], 1)


@pytest.mark.parametrize("value", ["4,x", "", "4,,8"])
def test_a_bad_list_is_a_usage_error(value: str) -> None:
    outcome = _invoke("latency", "--prompt-tokens", value)
    assert outcome.exit_code == 2
    assert "is no list of int" in outcome.stderr


@pytest.mark.parametrize(
    "command",
    (
        "latency throughput accuracy resources startup cache cache-policy cache-choice "
        "cache-faults routing speculation serve ledger suite compare"
    ).split(),
)
def test_every_benchmark_has_help(command: str) -> None:
    outcome = _invoke(command, "--help")
    assert outcome.exit_code == 0
    assert len(outcome.stdout.splitlines()) > 5
