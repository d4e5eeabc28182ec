from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from novacron.bench import load
from novacron.bench.load_job import Load
from novacron.bench.scenario import LoadScenario
from novacron.bench.target import TargetOptions
from novacron.errors import ConfigError
from novacron.testing.tiny_models import make_tiny_model

MB = 10**6
ONE = Load(
    precision="int4 in groups of 32", weight_bytes=700 * MB, largest_file_bytes=500 * MB,
    peak_bytes=1300 * MB, left_bytes=750 * MB, seconds=2.0,
)  # fmt: skip


def row_of(*peaks_mb: int) -> load.Row:
    return load.load_row("int4", [replace(ONE, peak_bytes=peak * MB) for peak in peaks_mb])


def test_the_worst_peak_is_judged() -> None:
    assert row_of(1300, 1399).metrics["beyond"].summary.p50 == pytest.approx(149.5)
    [goal] = load.goals_of([row_of(1300, 1399)])
    assert goal.value == 199
    assert goal.met
    assert not load.goals_of([row_of(1300, 1401)])[0].met


def run(model: Path, precision: str) -> load.BenchResult:
    options = TargetOptions(
        model=str(model), settings=("device=cpu", "num_threads=1", "dtype=float32"), environment={}
    )
    scenario = LoadScenario(precisions=(precision,), repeats=1)
    return asyncio.run(load.run(options, scenario, lambda text: None))


def test_a_model_is_loaded_in_a_process_of_its_own(tmp_path: Path) -> None:
    model = make_tiny_model("llama", tmp_path / "tiny")
    result = run(model, "int4")
    metrics = result.row(precision="int4").metrics
    assert result.rows[0].labels["held as"].startswith("int4 in groups of 32")
    file = (model / "model.safetensors").stat().st_size
    assert metrics["largest_file"].summary.mean == pytest.approx(file / MB, rel=1e-3)
    assert 0 < metrics["weights"].summary.mean < file / MB
    with pytest.raises(ConfigError, match="quantization"):
        run(model, "int3")
