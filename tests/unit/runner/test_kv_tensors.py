from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.config.engine import CacheConfig, SchedulerConfig
from novacron.errors import ConfigError
from novacron.kernels.kv_format import KVFormat
from novacron.models.decoder_config import DecoderConfig, LayerConfig, RopeConfig
from novacron.parallel.groups import SINGLE, ParallelGroup
from novacron.runner import kv_tensors as module
from novacron.runner.kv_tensors import (
    KVTensors,
    activation_bytes,
    block_bytes,
    free_memory_bytes,
    num_blocks_to_allocate,
    spare_memory_bytes,
)

CPU = torch.device("cpu")
CONFIG = DecoderConfig(
    vocab_size=100,
    hidden_size=64,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    ffn_size=128,
    layers=(LayerConfig(rope=RopeConfig(theta=1e4, rotary_dim=8)),) * 3,
    context_length=512,
    longest_context=512,
    norm_eps=1e-6,
    attention_scale=1.0,
)


FORMATS = (KVFormat("bfloat16"), KVFormat("bfloat16"), KVFormat("int8"))


def make(num_blocks: int = 6, group: ParallelGroup = SINGLE) -> KVTensors:
    return KVTensors(
        CONFIG, group, num_blocks=num_blocks, block_size=16, formats=FORMATS, device=CPU
    )


@pytest.mark.parametrize(("group", "heads"), [(SINGLE, 4), (ParallelGroup(1, 4), 1)])
def test_size_is_what_was_planned(group: ParallelGroup, heads: int) -> None:
    tensors = make(group=group)
    assert len(tensors.layers) == 3
    assert tensors.layers[0].key.shape == (heads, 6, 16 * 8 * 2)
    assert tensors.layers[2].key.shape == (heads, 6, 16 * 8 + 64), "data and scales, aligned"
    assert tensors.num_bytes == 6 * block_bytes(CONFIG, group, 16, FORMATS)
    assert not any(bool(layer.key.any() or layer.value.any()) for layer in tensors.layers)


def test_tainted_blocks_are_zeroed_once_when_written_anew() -> None:
    tensors = make()
    key = tensors.layers[1].key
    key.fill_(1)
    tensors.taint([2, 3])
    tensors.clean([1, 2])
    assert not bool(key[:, 2].any())
    assert bool(key[:, [0, 1, 3, 4, 5]].all())
    key[:, 2] = 1
    tensors.clean([2])
    assert bool(key[:, 2].all())


CACHE, SCHEDULER = CacheConfig(block_size=16), SchedulerConfig(max_num_seqs=4)


def num_blocks(cache: CacheConfig, spare_bytes: int, max_model_len: int = 100) -> int:
    return num_blocks_to_allocate(
        cache,
        SCHEDULER,
        bytes_per_block=1000,
        max_model_len=max_model_len,
        spare_bytes=spare_bytes,
    )


def test_number_of_blocks() -> None:
    assert num_blocks(CACHE, 10_999) == 10, "bounded by memory"
    assert num_blocks(CACHE, 10**9) == 4 * 7, "bounded by what can be used"
    assert num_blocks(CacheConfig(kv_cache_memory=5000), 10**9) == 5, "bounded by the setting"
    with pytest.raises(ConfigError, match="may use 999 bytes, but one block takes 1000"):
        num_blocks(CACHE, 999)


def test_spare_memory_leaves_room_for_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory_bytes", lambda device: 1000)
    assert spare_memory_bytes(CACHE, CPU, activation_bytes=100) == 400
    assert spare_memory_bytes(CACHE, CPU, activation_bytes=600) == 0


def test_activations_grow_with_the_step() -> None:
    small = activation_bytes(CONFIG, SINGLE, SchedulerConfig(), torch.float32)
    large = SchedulerConfig(max_num_batched_tokens=4096)
    assert small < activation_bytes(CONFIG, SINGLE, large, torch.float32)


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [("1000", "inactive_file 100\nanon 5", 400), ("max", "", 2**63), ("100", "anon 5", 0)],
)
def test_a_container_bounds_the_free_memory(
    limit: str, stat: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text(stat)
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    free = free_memory_bytes(CPU)
    assert free == expected if expected < 2**40 else free < 2**63
