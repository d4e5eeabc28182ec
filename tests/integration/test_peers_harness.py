"""The harness with our own engine as every contestant: no peer needs to be installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.peers import workers
from benchmarks.peers.harness import Harness
from benchmarks.peers.plan import parse_contestant
from benchmarks.peers.workers import Place

from novacron.bench.machine_peaks import MachinePeaks
from novacron.bench.model_shapes import choose_shape
from novacron.bench.random_model import make_model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "model"
    make_model(folder, choose_shape("tiny", {}))
    peaks = MachinePeaks(read_gb_per_s={1: 10.0}, gop_per_s={"bf16": 1.0})
    monkeypatch.setattr("benchmarks.peers.harness.measure_peaks", lambda *_, **__: peaks)
    monkeypatch.setattr(workers, "ENVIRONMENT", tmp_path / "nothing-installed")
    return Place(folder, tmp_path / "cache", threads=1)


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


def test_a_start_is_a_process_from_its_beginning_to_its_first_token(place: Place) -> None:
    contestants = [parse_contestant("novacron")]
    harness = Harness(place, contestants, rounds=1, seed=0, say=lambda _: None)
    harness.run("bf16", ["start"], contestants)
    [case] = harness.cases
    assert case.rounds[0]["novacron"] > 0.1  # an interpreter does not start in less
