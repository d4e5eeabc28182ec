from __future__ import annotations

import pytest

from novacron.models.families.mistral.config import read_config
from novacron.models.hf_config import HFConfig


@pytest.mark.parametrize("window", [4096, None])
def test_the_window_holds_for_every_layer_if_there_is_one(window: int | None) -> None:
    values = {
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 3,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": window,
        "vocab_size": 32000,
    }
    config = read_config(HFConfig(values, "config.json"))
    assert [layer.window for layer in config.layers] == [window] * 3
