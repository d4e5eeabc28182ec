from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from benchmarks.peers.plan import WORKS, Contestant
from benchmarks.peers.table import (
    Case,
    goals_of,
    rows_of,
    shares_of_limit,
    side_by_side,
    weights_read,
)

from novacron.bench.machine_peaks import MachinePeaks
from novacron.bench.model_shapes import SHAPES

CONTESTANTS = (Contestant("novacron"), Contestant("llama.cpp"), Contestant("openvino"))
PEAKS = MachinePeaks(read_gb_per_s={1: 20.0, 2: 40.0}, gop_per_s={"bf16": 500.0, "int8": 1000.0})
WEIGHTS = (900_000_000, 100_000_000)


def _case(name: str, precision: str, **readings: list[float]) -> Case:
    named = {key.replace("_", "."): values for key, values in readings.items()}
    rounds = [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]
    return Case(name, WORKS[name], precision, rounds, [PEAKS] * len(rounds))


def test_ratios_are_taken_within_rounds() -> None:
    """The machine is half as fast in the second round, for both."""
    case = _case("decode-8", "int4", novacron=[200, 80, 210], llama_cpp=[100, 40, 105])
    assert case.ratios("novacron", "llama.cpp") == [2.0, 2.0, 2.0]


def test_the_best_peer_is_never_ours_and_judged_by_its_median() -> None:
    case = _case(
        "decode-8", "int8", novacron=[900, 900, 900], llama_cpp=[10, 500, 10],
        openvino=[20, 20, 20],
    )  # fmt: skip
    assert case.best_peer(CONTESTANTS) == "openvino"
    alone = _case("decode-8", "int8", novacron=[1.0])
    assert alone.best_peer(CONTESTANTS) is None


def test_of_starts_the_shortest_is_the_best() -> None:
    case = _case("start", "int4", novacron=[2.0], llama_cpp=[1.0], openvino=[8.0])
    assert case.best_peer(CONTESTANTS) == "llama.cpp"
    assert case.ratios("novacron", "llama.cpp") == [0.5]
    case.peaks.clear()
    [ours, *_] = rows_of(case, CONTESTANTS, 2, WEIGHTS)
    assert ours.metrics["time"].unit == "s"
    assert "rate" not in ours.metrics


def test_a_round_that_a_contestant_missed_is_left_out_of_its_ratio() -> None:
    case = _case("decode-1", "bf16", novacron=[30, 30], llama_cpp=[10, 20])
    del case.rounds[0]["llama.cpp"]
    assert case.ratios("novacron", "llama.cpp") == [1.5]
    assert case.median("llama.cpp") == 20


def test_decoding_is_measured_against_what_memory_gives() -> None:
    """10^9 weights of 8.125 bits are 1.0156 GB; 40 GB/s read them 39.4 times a second."""
    case = _case("decode-1", "int8", novacron=[19.69])
    assert shares_of_limit(case, "novacron", 2, WEIGHTS) == [pytest.approx(0.5, abs=1e-3)]
    assert (
        shares_of_limit(_case("decode-8", "int8", novacron=[1.0]), "novacron", 2, WEIGHTS) is None
    )


def test_a_prefill_is_measured_against_the_peak_of_products() -> None:
    """512 tokens through 0.9 10^9 weights, the output once: 0.9218 Tera-operations."""
    case = _case("prefill-512", "int4", novacron=[512 / 1.8436])
    assert shares_of_limit(case, "novacron", 2, WEIGHTS) == [pytest.approx(0.5, abs=1e-3)]


def test_what_a_token_reads_of_the_1_1b_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**asdict(SHAPES["1.1b"]), "other": 1}))
    assert round(sum(weights_read(tmp_path)) / 1e6, 1) == 1034.4
    tied = {**asdict(SHAPES["3.2b"])}
    (tmp_path / "config.json").write_text(json.dumps(tied))
    assert weights_read(tmp_path)[1] == 128_256 * 3072


def test_the_table_shows_who_was_beaten_and_leaves_gaps() -> None:
    cases = [
        _case("decode-1", "int4", novacron=[60.0], llama_cpp=[40.0], openvino=[30.0]),
        _case("decode-8", "int4", llama_cpp=[115.0]),
    ]
    grid = side_by_side(cases, CONTESTANTS, 2, WEIGHTS)
    assert grid.header == (
        "scenario", "weights", "novacron", "llama.cpp", "openvino", "novacron / best peer",
        "of limit",
    )  # fmt: skip
    assert grid.lines[0] == ("decode-1", "int4", "60", "40", "30", "1.50x llama.cpp", "84%")
    assert grid.lines[1] == ("decode-8", "int4", "", "115", "", "", "")


def test_goals_are_judged_against_the_peer_they_name() -> None:
    cases = [
        _case("decode-1", "int4", novacron=[60.0], llama_cpp=[50.0], openvino=[55.0]),
        _case("decode-16", "int4", novacron=[300.0], llama_cpp=[100.0], openvino=[200.0]),
        _case("decode-64", "int4", novacron=[450.0], llama_cpp=[100.0], openvino=[200.0]),
    ]
    goals = {goal.name: goal for goal in goals_of(cases, CONTESTANTS, 2, WEIGHTS)}
    assert goals["decode-1 int4 to llama.cpp"].value == pytest.approx(1.2)
    assert not goals["decode-1 int4 to llama.cpp"].met
    assert goals["decode-16 int4 to the best peer"].value == 1.5
    assert goals["64 streams to 16, int4"].met
    assert goals.keys() == {
        "decode-1 int4 to llama.cpp", "decode-16 int4 to the best peer", "64 streams to 16, int4",
    }  # fmt: skip


def test_a_start_must_be_quick_and_narrow_keys_must_pay() -> None:
    narrow = Contestant("novacron", {"kv_cache_dtype": "int8"})
    cases = [
        _case("start", "int4", novacron=[2.0, 9.0, 2.5]),
        Case(
            "decode-8k", WORKS["decode-8k"], "int8",
            [{"novacron": 10.0, narrow.name: 14.0}], [PEAKS],
        ),
    ]  # fmt: skip
    goals = {goal.name: goal for goal in goals_of(cases, (*CONTESTANTS, narrow), 2, WEIGHTS)}
    assert goals["start int4"].value == 2.5
    assert goals["start int4"].met
    assert goals["decode-8k int8, int8 KV to novacron"].value == pytest.approx(1.4)
