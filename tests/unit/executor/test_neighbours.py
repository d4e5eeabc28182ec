from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import SharedDevice, SpeculativeConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.config.variants import Variant
from novacron.errors import ModelLoadError
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.inline import InlineExecutor
from novacron.executor.memory_plan import DeviceMemory
from novacron.executor.neighbours import before_all, draw_neighbours
from novacron.testing.tiny_models import make_tiny_model

MIB = 2**20
SCHEDULER = SchedulerConfig(max_num_seqs=2, max_num_batched_tokens=64)
INT8, LAYERS = Variant("int8"), Variant("none", layers=("*.0.*=int4",))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def model_config(**settings: Any) -> ModelConfig:
    return ModelConfig(device="cpu", dtype="float32", num_threads=1, **settings)


def load(path: Path, shared: SharedDevice, **settings: Any) -> InlineExecutor:
    return InlineExecutor(
        model_config(**settings),
        CacheConfig(kv_cache_memory=MIB),
        SCHEDULER,
        model_path=path,
        progress=lambda phase, fraction: None,
        shared=shared,
    )


def test_a_neighbour_is_planned_with_the_bytes_that_it_takes_when_it_is_loaded(path: Path) -> None:
    own = draw_blueprint(model_config(), path, 1)
    shared = SharedDevice(others=(INT8, LAYERS))
    int8, layers = draw_neighbours(
        own, None, shared, model_config(), SCHEDULER, SpeculativeConfig()
    )
    alone = SharedDevice()
    assert int8.weight_bytes == load(path, alone, quantization="int8").spec.weight_bytes
    with_layers = load(path, alone, quantization="none", quantization_layers=LAYERS.layers)
    assert layers.weight_bytes == with_layers.spec.weight_bytes
    assert int8.weight_bytes < layers.weight_bytes < own.shape().weight_bytes
    assert int8.step_bytes == layers.step_bytes > 0


def test_engines_that_are_loaded_one_after_the_other_split_the_cache_equally(path: Path) -> None:
    none = load(path, SharedDevice(others=(INT8,))).spec
    free_bytes = none.device_free_bytes
    assert free_bytes > 0
    of_int8 = SharedDevice(others=(Variant("none"),), free_bytes=free_bytes)
    int8 = load(path, of_int8, quantization="int8").spec
    assert int8.device_free_bytes == free_bytes, "what it was told, not what it found"
    assert int8.num_blocks == none.num_blocks > 0
    assert none.kv_cache_bytes + int8.kv_cache_bytes <= MIB
    assert load(path, SharedDevice()).spec.kv_cache_bytes > none.kv_cache_bytes


def test_memory_that_is_gone_since_the_first_start_is_told(path: Path) -> None:
    shape = replace(draw_blueprint(model_config(), path, 1).shape(), weight_bytes=800 * MIB)
    now = DeviceMemory("cpu", 500 * MIB, 4000 * MIB, 0.5, is_own=False)
    assert before_all(now, None, shape) is now
    with pytest.raises(ModelLoadError, match=r"had 2\.0 GiB free .* and has 500\.0 MiB now"):
        before_all(now, 2048 * MIB, shape)
    assert before_all(replace(now, free_bytes=900 * MIB), 2048 * MIB, shape).free_bytes == 2**31
