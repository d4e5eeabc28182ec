"""The harness with our own engine as every contestant: no peer needs to be installed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from benchmarks.peers import over_http, workers
from benchmarks.peers.harness import Harness
from benchmarks.peers.plan import parse_contestant
from benchmarks.peers.workers import NotMeasured, Place

from novacron.bench.machine_peaks import MachinePeaks
from novacron.bench.model_shapes import choose_shape
from novacron.bench.random_model import make_model

_STAND_IN = """#!{python}
import sys
from novacron.cli.main import main

port = sys.argv[sys.argv.index("--port") + 1]
sys.argv[1:] = ["serve", "{folder}", "--port", port, "--num-threads", "1"]
main()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "model"
    make_model(folder, choose_shape("tiny", {}))
    peaks = MachinePeaks(read_gb_per_s={1: 10.0}, gop_per_s={"bf16": 1.0})
    monkeypatch.setattr("benchmarks.peers.harness.measure_peaks", lambda *_, **__: peaks)
    monkeypatch.setattr(workers, "ENVIRONMENT", tmp_path / "nothing-installed")
    return Place(folder, tmp_path / "cache", threads=1)


@pytest.mark.slow
def test_rounds_are_measured_and_refusals_noted(place: Place) -> None:
    told: list[str] = []
    contestants = [
        parse_contestant(text)
        for text in ("novacron", "novacron:block_size=32", "novacron:wings=2", "llama.cpp")
    ]
    harness = Harness(place, contestants, rounds=2, seed=0, say=told.append)
    harness.run("bf16", ["decode-8", "prefill-512"], harness.prepare("bf16"))
    assert [case.name for case in harness.cases] == ["decode-8", "prefill-512"]
    for case in harness.cases:
        assert len(case.rounds) == len(case.peaks) == 2
        for readings in case.rounds:
            assert readings.keys() == {"novacron", "novacron:block_size=32"}
            assert all(rate > 0 for rate in readings.values())
    assert harness.not_measured == [
        "llama.cpp bf16: its environment is missing; run `make bench-peers`",
        "novacron:wings=2 bf16: LLM has no setting named wings.",
    ]
    assert any("round 2 of 2" in line for line in told)


@pytest.mark.slow
def test_a_start_is_a_process_from_its_beginning_to_its_first_token(place: Place) -> None:
    contestants = [parse_contestant("novacron")]
    harness = Harness(place, contestants, rounds=1, seed=0, say=lambda _: None)
    harness.run("bf16", ["start"], contestants)
    [case] = harness.cases
    assert case.rounds[0]["novacron"] > 0.1  # an interpreter does not start in less


@pytest.mark.slow
def test_servers_are_compared_over_http(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second server of ours stands in for llama-server."""
    program = workers.llama_server()
    program.parent.mkdir(parents=True)
    program.write_text(_STAND_IN.format(python=sys.executable, folder=place.folder))
    program.chmod(0o755)
    place.cache.mkdir()
    (place.cache / f"{place.folder.name}-bf16.gguf").touch()
    monkeypatch.setattr(over_http, "USERS", (1, 2))
    ours = parse_contestant("novacron")
    rows, goals = asyncio.run(over_http.compare(place, ours, "bf16", 1, 0, lambda _: None))
    assert [(row.labels["scenario"], row.labels["engine"]) for row in rows] == [
        ("http-1", "novacron serve"), ("http-1", "llama-server"),
        ("http-2", "novacron serve"), ("http-2", "llama-server"),
    ]  # fmt: skip
    assert all(row.metrics["total_rate"].summary.p50 > 0 for row in rows)
    assert [goal.name for goal in goals] == [
        "http-2 bf16: total tokens to llama-server", "http-2 bf16: TTFT p95 to llama-server",
    ]  # fmt: skip


def test_without_llama_server_nothing_is_started(place: Place) -> None:
    ours = parse_contestant("novacron")
    with pytest.raises(NotMeasured, match="llama-server is missing"):
        asyncio.run(over_http.compare(place, ours, "bf16", 1, 0, lambda _: None))
