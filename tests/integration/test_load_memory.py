"""Rounding weights while they are loaded never holds the model in its own precision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from novacron.bench.load_job import Load, LoadJob
from novacron.bench.model_shapes import LlamaShape
from novacron.bench.random_model import make_model
from novacron.config.model import ModelConfig

MIB = 2**20
SHARD_BYTES = 40 * MIB
SHAPE = LlamaShape(
    hidden_size=1024, intermediate_size=2816, num_hidden_layers=14, num_attention_heads=16,
    num_key_value_heads=4, vocab_size=2048,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "random"
    make_model(folder, SHAPE, shard_bytes=SHARD_BYTES)
    return folder


@pytest.mark.parametrize("kernels", ["native", pytest.param("torch", marks=pytest.mark.slow)])
@pytest.mark.parametrize("quantization", ["int4", "memory_critical"])
def test_the_peak_is_the_rounded_model_and_a_shard(
    model: Path,
    quantization: Literal["int4", "memory_critical"],
    kernels: Literal["native", "torch"],
) -> None:
    config = ModelConfig(
        device="cpu", dtype="bfloat16", quantization=quantization, kernels=kernels, num_threads=1
    )
    result = subprocess.run(
        [sys.executable, "-m", "novacron.bench.loaded_model"],
        input=msgspec.json.encode(LoadJob(config, str(model))), capture_output=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = msgspec.json.decode(result.stdout, type=Load)
    files = [path.stat().st_size for path in model.glob("*.safetensors")]
    assert found.largest_file_bytes == max(files)
    bound = found.weight_bytes + max(files) + 130 * MIB  # for what allocators keep
    assert bound < sum(files), "the model is too small to tell"
    assert found.peak_bytes < bound
