"""`novacron plan`: tables, JSON, and refusals with numbers, without reading a weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from novacron.executor import device_memory
from novacron.executor.memory_plan import DeviceMemory
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty mebibytes, of which the cache may have half of what weights leave."""
    found = DeviceMemory("cpu", 40 * 2**20, 64 * 2**20, 0.5, is_own=False)
    monkeypatch.setattr(device_memory, "measure_device_memory", lambda device, cache: found)


OPTIONS = ("--device", "cpu", "--dtype", "float32", "--max-num-batched-tokens", "64")


def test_tables(novacron, model: Path) -> None:
    result = novacron("plan", str(model), *OPTIONS, "--max-num-seqs", "64")
    assert result.exit_code == 0, result.output
    lines = {line.partition("  ")[0].strip(): line for line in result.output.splitlines()}
    assert "40.0 MiB free of 64.0 MiB on cpu" in lines["Memory"]
    assert "blocks of 16 tokens in float32" in lines["KV cache"]
    assert "LlamaForCausalLM" in lines["Model"]
    rows = [lines[kv_dtype].split() for kv_dtype in ("float32", "bfloat16", "int8")]
    sizes = [float(row[1]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    streams = [int(row[3]) for row in rows]
    assert streams == sorted(streams)
    assert 0 < streams[0] < streams[2]
    assert f"at {streams[0]} streams" in lines["Fits"]


def test_json(novacron, model: Path) -> None:
    result = novacron("plan", str(model), *OPTIONS, "--kv-cache-dtype", "int8", "--json")
    plan = json.loads(result.output)
    assert plan["capacity"]["kv_dtype"] == "int8"
    assert plan["max_model_len"] == 512
    assert plan["device"]["free_bytes"] == 40 * 2**20
    assert plan["num_blocks"] * 16 >= 512
    assert plan["fits"].startswith("max_model_len 512 at ")


def test_weights_are_not_read(novacron, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("novacron.models.loading.load_weights", None)
    assert novacron("plan", str(model), *OPTIONS).exit_code == 0


def test_what_does_not_fit_is_refused_with_numbers(novacron, model: Path) -> None:
    result = novacron("plan", str(model), "--kv-cache-memory", "64Ki", "--max-model-len", "512")
    assert result.exit_code == 2
    assert "max_model_len is 512, but the KV cache has room for" in result.output
    assert "with kv_cache_dtype int8" in result.output


def test_ranks_hold_all_of_a_model_together(novacron, model: Path) -> None:
    alone = json.loads(novacron("plan", str(model), *OPTIONS, "--json").output)
    [whole] = alone["ranks"]
    result = novacron("plan", str(model), *OPTIONS, "-pp", "2", "-tp", "2", "--json")
    plan = json.loads(result.output)
    ranks = plan["ranks"]
    assert [(rank["rank"], rank["stage"], rank["slice"]) for rank in ranks] == [
        (0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)
    ]  # fmt: skip
    assert [ranks[0]["first_layer"], ranks[0]["last_layer"] + 1, ranks[2]["last_layer"]] == [
        0, ranks[2]["first_layer"], whole["last_layer"]
    ]  # fmt: skip
    norms = 4 * 64 * (1 + 2 * (whole["last_layer"] + 1))  # whole in every slice
    assert sum(rank["weight_bytes"] for rank in ranks) == whole["weight_bytes"] + norms
    assert sum(rank["kv_cache_bytes"] for rank in ranks) == plan["kv_cache_bytes"]


def test_stages_are_shown_with_their_layers(novacron, model: Path) -> None:
    result = novacron("plan", str(model), *OPTIONS, "-pp", "2")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.startswith("rank ")]
    assert [row[1:4] for row in rows] == [["0", "0", "0-0"], ["1", "1", "1-2"]]
    assert "rank 0" not in novacron("plan", str(model), *OPTIONS).output


def test_more_stages_than_layers_are_refused(novacron, model: Path) -> None:
    result = novacron("plan", str(model), *OPTIONS, "-pp", "4")
    assert result.exit_code == 2
    assert "pipeline_parallel_size is 4, but the model has 3 layers" in result.output


def test_shares_of_rows_hold_the_whole_model_each(novacron, model: Path, tmp_path: Path) -> None:
    alone = json.loads(novacron("plan", str(model), *OPTIONS, "--json").output)
    plan = json.loads(novacron("plan", str(model), *OPTIONS, "-cp", "2", "--json").output)
    assert [(rank["rows"], rank["num_shares"]) for rank in plan["ranks"]] == [(0, 2), (1, 2)]
    assert {rank["weight_bytes"] for rank in plan["ranks"]} == {alone["weight_bytes"]}
    assert plan["weight_bytes"] == 2 * alone["weight_bytes"], "both on this host"
    file = tmp_path / "novacron.yaml"
    file.write_text(f"rank_hosts: [{'0' * 64}@node-2:9092]\n")
    apart = novacron("plan", str(model), *OPTIONS, "-cp", "2", "--config", str(file), "--json")
    assert json.loads(apart.output)["weight_bytes"] == alone["weight_bytes"], "one on each"
