from __future__ import annotations

from pathlib import Path

import pytest

from novacron.bench.scenario import (
    LatencyScenario,
    ServeScenario,
    ThroughputScenario,
    make_scenario,
    read_scenarios,
)
from novacron.bench.suite import BENCHMARKS
from novacron.errors import ConfigError


def test_a_table_becomes_a_scenario() -> None:
    scenario = make_scenario(LatencyScenario, {"prompt-tokens": [8, 16], "repeats": 3})
    assert scenario == LatencyScenario(prompt_tokens=(8, 16), repeats=3)


@pytest.mark.parametrize(
    "values", [{"repeats": 0}, {"prompt_tokens": []}, {"prompt_tokens": [8, 0]}, {"seed": -1}]
)
def test_counts_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"give . or more"):
        make_scenario(LatencyScenario, values)


def test_no_prefix_is_allowed_and_no_rate_is_not() -> None:
    assert ServeScenario(prefix_tokens=0).prefix_tokens == 0
    with pytest.raises(ConfigError, match="--rates"):
        ServeScenario(rates=(4.0, 0.0))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no streams; there are .*num_streams"):
        make_scenario(ThroughputScenario, {"streams": 3})


def test_a_file_has_tables(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[latency]\nrepeats = 2\n")
    assert read_scenarios(path) == {"latency": {"repeats": 2}}
    path.write_text("repeats = 2\n")
    with pytest.raises(ConfigError, match="outside of a table"):
        read_scenarios(path)
    path.write_text("[latency\n")
    with pytest.raises(ConfigError, match="no scenario file"):
        read_scenarios(path)


@pytest.mark.parametrize("path", sorted(Path("benchmarks/scenarios").glob("*.toml")), ids=str)
def test_the_shipped_scenarios_are_valid(path: Path) -> None:
    for name, table in read_scenarios(path).items():
        make_scenario(BENCHMARKS[name].scenario, table)
