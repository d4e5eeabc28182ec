from __future__ import annotations

import math
from typing import Any

import pytest

from novacron.models.decoder_config import DecoderConfig, LongRopeScaling
from novacron.models.families.phi3.config import read_config
from novacron.models.families.phi3.weights import source_of
from novacron.models.hf_config import HFConfig
from novacron.models.weight_slots import Source

PHI_4_MINI: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 24,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "long_factor": [2.0] * 48,
        "short_factor": [1.0] * 48,
        "type": "longrope",
    },
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
    "vocab_size": 200064,
}


def read(**changes: Any) -> DecoderConfig:
    return read_config(HFConfig({**PHI_4_MINI, **changes}, "config.json"))


def test_a_published_file() -> None:
    config = read()
    rope = config.layers[0].rope
    assert (config.head_dim, rope.rotary_dim) == (128, 96)
    assert isinstance(rope.scaling, LongRopeScaling)
    assert rope.scaling.original_max_position == 4096
    assert rope.scaling.attention_factor == math.sqrt(1 + math.log(32) / math.log(4096))


@pytest.mark.parametrize("name", ["su", "yarn"])
def test_early_names_of_longrope(name: str) -> None:
    assert read(rope_scaling={**PHI_4_MINI["rope_scaling"], "type": name}) == read()


def test_packed_tensors() -> None:
    config, prefix = read(), "model.layers.1"
    qkv, gate_up = f"{prefix}.self_attn.qkv_proj.weight", f"{prefix}.mlp.gate_up_proj.weight"
    expected = {
        "self_attn.q_proj": Source(qkv, 0, 5120),
        "self_attn.k_proj": Source(qkv, 3072, 5120),
        "self_attn.v_proj": Source(qkv, 4096, 5120),
        "mlp.gate_proj": Source(gate_up, 0, 16384),
        "mlp.up_proj": Source(gate_up, 8192, 16384),
        "mlp.down_proj": Source(f"{prefix}.mlp.down_proj.weight"),
    }
    for name, source in expected.items():
        assert source_of(f"{prefix}.{name}.weight", config) == source
