from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from novacron.bench.machine_peaks import (
    MachinePeaks,
    median_peaks,
    products_gop_per_s,
)


def test_products_are_measured_and_threads_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("novacron.bench.machine_peaks._SIZE", 512)
    before = torch.get_num_threads()
    rates = products_gop_per_s(1, repeats=1)
    assert {"fp32", "bf16"} <= rates.keys()
    assert all(rate > 0 for rate in rates.values())
    assert torch.get_num_threads() == before


def test_a_precision_that_cannot_be_multiplied_in_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> object:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(
        "novacron.bench.machine_peaks._products",
        lambda: {"fp32": [refuse, lambda: None], "int8": [refuse]},
    )
    assert products_gop_per_s(1, repeats=1).keys() == {"fp32"}


def test_medians_are_taken_entry_by_entry() -> None:
    readings = [
        MachinePeaks(read_gb_per_s={1: one, 2: two}, gop_per_s={"int8": rate})
        for one, two, rate in ((10.0, 40.0, 5.0), (30.0, 20.0, 1.0), (20.0, 30.0, 9.0))
    ]
    assert median_peaks(readings) == MachinePeaks(
        read_gb_per_s={1: 20.0, 2: 30.0}, gop_per_s={"int8": 5.0}
    )


def test_the_module_prints_json() -> None:
    command = [sys.executable, "-m", "novacron.bench.machine_peaks", "--threads=1", "--repeats=1"]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert printed["read_gb_per_s"].keys() == {"1"}
    assert printed["gop_per_s"]["fp32"] > 0
