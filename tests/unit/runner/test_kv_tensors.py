from __future__ import annotations

import pytest
import torch

from novacron.kernels.kv_format import KVFormat
from novacron.models.decoder_config import DecoderConfig, LayerConfig, RopeConfig
from novacron.parallel.groups import SINGLE, ParallelGroup
from novacron.runner.kv_tensors import KVTensors

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
    assert tensors.num_bytes == 2 * heads * 6 * (256 + 256 + 192)
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
