"""Qwen 2, 2.5, 3 and both kinds with experts."""

from __future__ import annotations

from typing import Any

import pytest

from novacron.models.families.qwen2.config import read_config as read_qwen2
from novacron.models.families.qwen2_moe.config import read_config as read_qwen2_moe
from novacron.models.families.qwen3.config import read_config as read_qwen3
from novacron.models.families.qwen3_moe.config import read_config as read_qwen3_moe
from novacron.models.hf_config import HFConfig

SIZES: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 32768,
    "max_window_layers": 2,
    "num_attention_heads": 16,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def config(**changes: Any) -> HFConfig:
    return HFConfig({**SIZES, **changes}, "config.json")


def test_qwen2() -> None:
    read = read_qwen2(config())
    assert read.qkv_bias
    assert not read.output_bias
    assert not read.qk_norm
    assert read.head_dim == 128


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, [None] * 4),
        ({"use_sliding_window": True}, [None, None, 4096, 4096]),
        (
            {
                "use_sliding_window": True,
                "layer_types": ["sliding_attention"] + ["full_attention"] * 3,
            },
            [4096, None, None, None],
        ),
    ],
)
def test_the_window_of_upper_layers_must_be_switched_on(
    changes: dict[str, Any], windows: list[int | None]
) -> None:
    for read in (read_qwen2, read_qwen3):
        assert [layer.window for layer in read(config(**changes)).layers] == windows


def test_qwen3_heads_are_wider_and_normed() -> None:
    read = read_qwen3(config(hidden_size=1024))
    assert (read.head_dim, read.layers[0].rope.rotary_dim) == (128, 128)
    assert read.qk_norm
    assert not read.qkv_bias


@pytest.mark.parametrize("read", [read_qwen2_moe, read_qwen3_moe])
def test_which_layers_have_experts(read: Any) -> None:
    found = read(config(decoder_sparse_step=2, mlp_only_layers=[3], num_experts=8))
    assert [layer.moe is not None for layer in found.layers] == [False, True, False, False]


def test_experts() -> None:
    qwen2 = read_qwen2_moe(config(num_experts=60, moe_intermediate_size=1408)).layers[0].moe
    assert qwen2 is not None
    assert (qwen2.num_experts, qwen2.ffn_size, qwen2.shared_ffn_size) == (60, 1408, 5632)
    qwen3 = read_qwen3_moe(config(num_local_experts=128, norm_topk_prob=True)).layers[0].moe
    assert qwen3 is not None
    assert (qwen3.num_experts, qwen3.renormalize, qwen3.shared_ffn_size) == (128, True, 0)
