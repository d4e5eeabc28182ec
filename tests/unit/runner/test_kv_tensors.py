from __future__ import annotations

import pytest
import torch

from novacron.kernels.kv_format import KVFormat, LayerFormat
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


BFLOAT16, INT8, INT4 = KVFormat("bfloat16"), KVFormat("int8"), KVFormat("int4")
FORMATS = (LayerFormat(BFLOAT16, BFLOAT16), LayerFormat(BFLOAT16, INT8), LayerFormat(INT8, INT4))


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
    assert tensors.layers[2].value.shape == (heads, 6, 16 * 16 + 64), "dimensions filled up to 32"
    assert tensors.num_bytes == heads * 6 * (256 + 256 + 256 + 192 + 192 + 320)
    assert not any(bool(layer.key.any() or layer.value.any()) for layer in tensors.layers)


def test_parts_of_a_block_lie_side_by_side_and_apart() -> None:
    """Each byte of a block belongs to one head's keys or values of one layer."""
    tensors = make()
    parts = [part for layer in tensors.layers for part in (layer.key, layer.value)]
    for number, part in enumerate(parts):
        part[:, 4].fill_(number + 1)
    for number, part in enumerate(parts):
        assert bool((part[:, 4] == number + 1).all())
        assert not bool(part[:, [0, 1, 2, 3, 5]].any())
    sizes = [part[:, 4].numel() for part in parts]
    assert sum(sizes) * tensors.num_blocks == tensors.num_bytes
    starts = [part[0, 4].data_ptr() - parts[0][0, 4].data_ptr() for part in parts]
    assert starts == [sum(sizes[:number]) for number in range(len(parts))]


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
