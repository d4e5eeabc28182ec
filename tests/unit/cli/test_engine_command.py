"""`novacron engine` and `novacron cluster key`: what is said before anything listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.cli.engine_start import spawn_engine
from novacron.config.load import load
from novacron.errors import ConfigError

KEY = "ab" * 32


def test_the_key_of_a_host_stays(novacron, tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    first, second = (novacron("cluster", "key", "--link-key", str(file)) for _ in range(2))
    assert first.exit_code == 0
    assert first.output == second.output
    assert len(first.output.strip()) == 64
    assert file.read_text().strip() not in first.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--allow"),
        (("--allow", "my-key"), "64 hexadecimal digits"),
        (("--allow", KEY, "--listen", "9091"), "tcp://ADDRESS:PORT"),
        (("--allow", KEY, "--listen", "tcp://203.0.113.9:9091"), "address of this host"),
        (("--allow", KEY, "--num-threads", "-1"), "num_threads"),
    ],
)
def test_what_it_cannot_do_is_said_at_once(
    novacron, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    result = novacron("engine", "--link-key", str(tmp_path / "link.key"), *arguments)
    assert result.exit_code == 2
    assert reason in result.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--allow"),
        (("--allow", "my-key"), "64 hexadecimal digits"),
        (("--allow", KEY, "--num-threads", "-1"), "num_threads"),
    ],
)
def test_what_a_rank_cannot_do_is_said_at_once(
    novacron, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    result = novacron("rank", "--link-key", str(tmp_path / "link.key"), *arguments)
    assert result.exit_code == 2
    assert reason in result.output


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"engine_hosts": "node-1:9091"}, "KEY@HOST:PORT"),
        ({"engine_hosts": f"{KEY}@a:1,{KEY}@b:1", "data_parallel_size": 3}, "has one replica"),
        ({"engine_hosts": f"{KEY}@a:1,{KEY}@a:1"}, "names a host twice"),
        ({"engine_hosts": f"{KEY}@a:1", "variants": "int8"}, "variants"),
        ({"rank_hosts": "node-2:9092"}, "rank_hosts is 'node-2:9092': give KEY@HOST:PORT"),
    ],
)
def test_a_server_says_what_its_hosts_cannot_be(
    tmp_path: Path, flags: dict[str, object], reason: str
) -> None:
    link_key = str(tmp_path / "link.key")
    with pytest.raises(ConfigError, match=reason):
        spawn_engine(load(file=None, env={}, flags={**flags, "link_key": link_key}))


def test_a_node_needs_the_token_of_its_cluster(novacron, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = novacron("cluster", "join", "10.0.0.1:9090")
    assert (result.exit_code, "cluster up" in result.output) == (2, True)
    nothing = novacron("cluster", "down")
    assert (nothing.exit_code, nothing.output) == (0, "0 of 0 nodes of this host have ended\n")
