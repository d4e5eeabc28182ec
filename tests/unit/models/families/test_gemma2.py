from __future__ import annotations

from novacron.models.families.gemma2.config import read_config
from novacron.models.hf_config import HFConfig


def test_a_published_file() -> None:
    config = read_config(
        HFConfig(
            {
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
                "head_dim": 256,
                "hidden_act": "gelu_pytorch_tanh",
                "hidden_activation": "gelu_pytorch_tanh",
                "hidden_size": 3584,
                "intermediate_size": 14336,
                "max_position_embeddings": 8192,
                "num_attention_heads": 16,
                "num_hidden_layers": 42,
                "num_key_value_heads": 8,
                "query_pre_attn_scalar": 256,
                "rms_norm_eps": 1e-06,
                "rope_theta": 10000.0,
                "sliding_window": 4096,
                "vocab_size": 256000,
            },
            "config.json",
        )
    )
    assert [layer.window for layer in config.layers[:4]] == [4096, None, 4096, None]
    assert (config.attention_softcap, config.logit_softcap) == (50.0, 30.0)
    assert config.embedding_scale == 3584**0.5
    assert config.activation == "gelu_tanh"
    assert config.tie_embeddings
    assert config.norm_offset
    assert config.sandwich_norms
