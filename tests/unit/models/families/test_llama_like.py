from __future__ import annotations

import math
from typing import Any

import pytest

from novacron.errors import ModelLoadError
from novacron.models.decoder_config import (
    DecoderConfig,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    YarnScaling,
)
from novacron.models.families.llama.config import read_config
from novacron.models.families.llama_like import windows_by_layer
from novacron.models.hf_config import HFConfig

LLAMA_3_1_8B: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}


def read(**changes: Any) -> DecoderConfig:
    return read_config(HFConfig({**LLAMA_3_1_8B, **changes}, "config.json"))


def test_a_published_file() -> None:
    config = read()
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (32, 8, 128)
    assert config.attention_scale == 128**-0.5
    assert (config.context_length, config.longest_context) == (131072, 131072)
    assert len(config.layers) == 32
    rope = config.layers[0].rope
    assert (rope.theta, rope.rotary_dim) == (500000.0, 128)
    assert rope.scaling == Llama3Scaling(8.0, 1.0, 4.0, 8192)


def test_both_rope_layouts_say_the_same() -> None:
    parameters = {"rope_theta": 500000.0, **LLAMA_3_1_8B["rope_scaling"]}
    assert read(rope_parameters=parameters, rope_scaling=None, rope_theta=None) == read()


def test_old_files_name_less() -> None:
    config = read(rope_scaling=None, rope_theta=None, num_key_value_heads=None, head_dim=None)
    assert config.layers[0].rope.theta == 10000.0
    assert config.layers[0].rope.scaling is None
    assert config.num_kv_heads == 32


@pytest.mark.parametrize(
    ("scaling", "expected", "lengths"),
    [
        ({"type": "linear", "factor": 4.0}, LinearScaling(4.0), (4096, 16384)),
        ({"type": "dynamic", "factor": 2.0}, DynamicScaling(2.0, 4096), (4096, 8192)),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
            YarnScaling(4.0, 4096, 0.1 * math.log(4.0) + 1.0, 32.0, 1.0, True),
            (16384, 16384),
        ),
        ({"rope_type": "default"}, None, (4096, 4096)),
    ],
)
def test_scalings_and_the_contexts_they_allow(
    scaling: dict[str, Any], expected: object, lengths: tuple[int, int]
) -> None:
    config = read(rope_scaling=scaling, max_position_embeddings=4096)
    assert config.layers[0].rope.scaling == expected
    assert (config.context_length, config.longest_context) == lengths


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": None}, "'vocab_size' is missing"),
        ({"hidden_act": "relu6"}, "the activation 'relu6' is not supported; supported: gelu"),
        ({"num_key_value_heads": 5}, r"\(32\) is not a multiple of 'num_key_value_heads' \(5\)"),
        ({"rope_scaling": {"type": "magic"}}, "the rope type 'magic' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "config.json: 'rope_scaling': 'factor' is missing"),
        ({"hidden_size": -1}, "'hidden_size' is -1, not a positive number"),
    ],
)
def test_unusable_files(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        read(**changes)


def test_layer_types_decide_which_layers_have_a_window() -> None:
    types = HFConfig({"layer_types": ["full_attention", "sliding_attention"]}, "config.json")
    assert windows_by_layer(types, 8, [True, True]) == [None, 8]
    assert windows_by_layer(HFConfig({}, ""), 8, [True, False]) == [8, None]
    with pytest.raises(ModelLoadError, match="'layer_types' has 2 entries for 3 layers"):
        windows_by_layer(types, 8, [True] * 3)
    unknown = HFConfig({"layer_types": ["linear_attention"]}, "config.json")
    with pytest.raises(ModelLoadError, match="linear_attention"):
        windows_by_layer(unknown, 8, [True])
