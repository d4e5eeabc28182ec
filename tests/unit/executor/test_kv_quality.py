from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.config.kv_layers import KVDtype
from novacron.errors import ConfigError
from novacron.executor.kv_quality import (
    LevelQuality,
    check_profile,
    keep_measurement,
    measurement_path,
    read_measurement,
)
from novacron.kernels.kv_format import KVFormat, LayerFormat
from novacron.models.decoder_config import DecoderConfig, LayerConfig, RopeConfig
from novacron.parallel.groups import SINGLE
from novacron.runner.kv_tensors import KVTensors

CONFIG = DecoderConfig(
    vocab_size=100,
    hidden_size=64,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    ffn_size=128,
    layers=(LayerConfig(rope=RopeConfig(theta=1e4, rotary_dim=8)),),
    context_length=512,
    longest_context=512,
    norm_eps=1e-6,
    attention_scale=1.0,
)
GOOD = LevelQuality(top1_agreement=0.995, kl=0.001, num_tokens=4000)
LADDER = CacheConfig(kv_tier_profile="ladder")


def test_a_profile_needs_a_measurement_of_each_of_its_levels(tmp_path: Path) -> None:
    path = tmp_path / "some" / "m.json"
    check_profile(CacheConfig(), path)
    with pytest.raises(ConfigError, match=r"int8, int8/int4 has not been .*bench kv-codecs"):
        check_profile(LADDER, path)
    keep_measurement(path, {"int8": GOOD})
    with pytest.raises(ConfigError, match="in int8/int4 has not been"):
        check_profile(LADDER, path)
    keep_measurement(path, {"int8/int4": GOOD})
    check_profile(LADDER, path)
    assert read_measurement(path) == {"int8": GOOD, "int8/int4": GOOD}


@pytest.mark.parametrize(
    "bad",
    [
        LevelQuality(top1_agreement=0.989, kl=0.001, num_tokens=4000),
        LevelQuality(top1_agreement=1.0, kl=0.0, num_tokens=100),
    ],
)
def test_a_level_that_loses_too_much_is_refused(tmp_path: Path, bad: LevelQuality) -> None:
    path = tmp_path / "m.json"
    keep_measurement(path, {"int8": GOOD, "int8/int4": bad})
    with pytest.raises(ConfigError, match=f"int8/int4 .* of {bad.num_tokens} tokens"):
        check_profile(LADDER, path)
    check_profile(CacheConfig(kv_tier_profile="ladder", kv_disk_compression="int8"), path)
    check_profile(CacheConfig(kv_tier_profile="ladder", kv_disk_compression="int8/int4"), path)


def test_a_file_that_cannot_be_read_is_no_measurement(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("{")
    assert read_measurement(path) == {}
    with pytest.raises(ConfigError):
        check_profile(LADDER, path)


def test_a_measurement_belongs_to_a_model_in_a_precision(tmp_path: Path) -> None:
    caches = [make_cache("bfloat16", 16), make_cache("float32", 16), make_cache("bfloat16", 32)]
    paths = {path_of(tmp_path, "w", cache) for cache in caches}
    assert len(paths | {path_of(tmp_path, "v", caches[0])}) == 4
    assert path_of(tmp_path, "w", make_cache("bfloat16", 16)) in paths


def path_of(folder: Path, weights: str, cache: KVTensors) -> Path:
    return measurement_path(folder, weights, cache.formats, cache.block_size)


def make_cache(dtype: KVDtype, block_size: int) -> KVTensors:
    kind = KVFormat(dtype)
    return KVTensors(
        CONFIG,
        SINGLE,
        num_blocks=1,
        block_size=block_size,
        formats=(LayerFormat(kind, kind),),
        device=torch.device("cpu"),
    )
