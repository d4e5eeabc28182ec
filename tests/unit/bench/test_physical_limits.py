from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from novacron.bench.physical_limits import ModelTraffic, model_traffic
from novacron.bench.server import ServerPlan
from novacron.bench.target import LocalEngine
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.demo import bundled_model_path


def _write(folder: Path, **config: object) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "a.safetensors").write_bytes(b"x" * 600)
    (folder / "b.safetensors").write_bytes(b"x" * 400)


def test_traffic_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    _write(
        tmp_path,
        num_hidden_layers=3,
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        torch_dtype="bfloat16",
    )
    assert model_traffic(tmp_path) == ModelTraffic(1000, 2 * 3 * 2 * 16 * 2)


def test_a_head_dim_of_its_own_counts(tmp_path: Path) -> None:
    _write(tmp_path, num_hidden_layers=1, hidden_size=64, num_attention_heads=4, head_dim=32)
    assert model_traffic(tmp_path) == ModelTraffic(1000, 2 * 4 * 32 * 4)


def test_a_folder_that_does_not_tell(tmp_path: Path) -> None:
    assert model_traffic(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert model_traffic(tmp_path) is None


def test_a_step_at_the_speed_of_memory_uses_all_of_it() -> None:
    traffic = ModelTraffic(weight_bytes=9_000, kv_bytes_per_token=10)
    limits = traffic.utilisation(0.01, 1e6, num_sequences=2, context=50)
    assert limits["bytes_per_step"] == 10_000
    assert limits["bytes_per_output_token"] == 5_000
    assert limits["least_step_ms"] == pytest.approx(10)
    assert limits["mbu"] == pytest.approx(1)


@pytest.mark.parametrize(
    "settings",
    [{"quantization": "int8"}, {"quantization_layers": ("*.0.*=int8",)}, {"dtype": "float32"}],
)
def test_no_limit_is_told_of_weights_that_are_held_otherwise(settings: dict[str, Any]) -> None:
    def engine(**chosen: Any) -> LocalEngine:
        config = EngineConfig(model=ModelConfig(**chosen))
        return LocalEngine(config, bundled_model_path(), ServerPlan((), {}), "")

    assert engine().traffic() is not None
    assert engine(**settings).traffic() is None
