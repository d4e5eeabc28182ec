"""Rounding weights while they are loaded never holds the model in its own precision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from novacron.bench.model_shapes import LlamaShape
from novacron.bench.random_model import make_model

MIB = 2**20
SHARD_BYTES = 40 * MIB
SHAPE = LlamaShape(
    hidden_size=1024, intermediate_size=2816, num_hidden_layers=14, num_attention_heads=16,
    num_key_value_heads=4, vocab_size=2048,
)  # fmt: skip

LOAD = """
import json, sys
from pathlib import Path
from novacron.config.engine import ModelConfig
from novacron.executor.blueprint import draw_blueprint
from novacron.models.loading import load_weights
import torch

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))

config = ModelConfig(device="cpu", dtype="bfloat16", quantization=sys.argv[2], kernels=sys.argv[3])
blueprint = draw_blueprint(config, Path(sys.argv[1]), 1)
torch.nn.functional.linear(torch.zeros(8, 8), torch.zeros(8, 8))
before = resident("VmRSS")
decoder = blueprint.build(blueprint.device)
load_weights(decoder, blueprint.checkpoint, blueprint.family, lambda fraction: None)
after, most = resident("VmRSS"), resident("VmHWM")
print(json.dumps({"final": decoder.weight_bytes, "peak": most - before, "left": after - before}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "random"
    make_model(folder, SHAPE, shard_bytes=SHARD_BYTES)
    return folder


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("quantization", ["int4", "memory_critical"])
def test_the_peak_is_the_rounded_model_and_a_shard(
    model: Path, quantization: str, kernels: str
) -> None:
    files = [path.stat().st_size for path in model.glob("*.safetensors")]
    command = [sys.executable, "-c", LOAD, str(model), quantization, kernels]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    bound = found["final"] + max(files) + 130 * MIB  # for what allocators keep
    assert bound < sum(files), "the model is too small to tell"
    assert found["peak"] < bound
