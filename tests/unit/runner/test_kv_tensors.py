from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from novacron.kernels.kv_format import KVFormat, LayerFormat
from novacron.kernels.metadata import KVLayer
from novacron.models.decoder_config import DecoderConfig, LayerConfig, RopeConfig
from novacron.parallel.groups import SINGLE, ParallelGroup
from novacron.runner.kv_tensors import KVTensors, shape_of_blocks

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
KINDS = (KVFormat("float32"), BFLOAT16, INT8, INT4)
FORMATS = (LayerFormat(BFLOAT16, BFLOAT16), LayerFormat(BFLOAT16, INT8), LayerFormat(INT8, INT4))


def make(num_blocks: int = 6, group: ParallelGroup = SINGLE) -> KVTensors:
    return KVTensors(
        CONFIG, group, num_blocks=num_blocks, block_size=16, formats=FORMATS, device=CPU
    )


def own_bytes(layer: KVLayer) -> set[int]:
    """Places in memory of what the layer has."""
    places = set()
    for part in (layer.key, layer.value):
        for head in part:
            for block in head:
                places.update(range(block.data_ptr(), block.data_ptr() + block.nbytes))
    return places


@given(
    num_kv_heads=st.sampled_from([1, 2, 4, 8]),
    num_ranks=st.sampled_from([1, 2, 4, 8]),
    formats=st.lists(
        st.builds(LayerFormat, st.sampled_from(KINDS), st.sampled_from(KINDS)),
        min_size=3,
        max_size=3,
    ),
    block_size=st.sampled_from([8, 16]),
)
def test_ranks_have_the_places_of_one_and_each_head_in_one_of_them(
    num_kv_heads: int, num_ranks: int, formats: list[LayerFormat], block_size: int
) -> None:
    """Ranks that share a memory share a block as heads do: whatever one of them has of a layer is
    where one process has it, all together have all of it, and a byte belongs to more than one only
    where ranks have the same head."""
    config = replace(CONFIG, num_kv_heads=num_kv_heads)
    sizes = {"num_blocks": 3, "block_size": block_size}
    memory = torch.zeros(shape_of_blocks(config, formats, **sizes), dtype=torch.uint8)
    whole = KVTensors(config, SINGLE, formats=formats, device=CPU, memory=memory, **sizes)
    ranks = [
        KVTensors(
            config, ParallelGroup(rank, num_ranks), formats=formats, device=CPU, memory=memory,
            **sizes,
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    for number, layer in enumerate(whole.layers):
        parts = [own_bytes(rank.layers[number]) for rank in ranks]
        assert set().union(*parts) == own_bytes(layer)
        copies = max(1, num_ranks // num_kv_heads)
        assert sum(map(len, parts)) == copies * len(own_bytes(layer))
    assert sum(len(own_bytes(layer)) for layer in whole.layers) == memory.nbytes
    assert {rank.block_bytes for rank in ranks} == {whole.block_bytes}


@pytest.mark.parametrize(("group", "heads"), [(SINGLE, 4), (ParallelGroup(1, 4), 1)])
def test_size_is_what_was_planned(group: ParallelGroup, heads: int) -> None:
    tensors = make(group=group)
    assert len(tensors.layers) == 3
    assert tensors.layers[0].key.shape == (heads, 6, 16 * 8 * 2)
    assert tensors.layers[2].key.shape == (heads, 6, 16 * 8 + 64), "data and scales, aligned"
    assert tensors.layers[2].value.shape == (heads, 6, 16 * 16 + 64), "dimensions filled up to 32"
    assert tensors.num_bytes == 4 * 6 * (256 + 256 + 256 + 192 + 192 + 320)
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
