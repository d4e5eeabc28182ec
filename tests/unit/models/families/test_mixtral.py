from __future__ import annotations

from novacron.models.decoder_config import MoeConfig
from novacron.models.families.mixtral.config import read_config
from novacron.models.families.mixtral.weights import source_of
from novacron.models.hf_config import HFConfig

MIXTRAL_8X7B: dict[str, object] = {
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}


def test_a_published_file() -> None:
    config = read_config(HFConfig(MIXTRAL_8X7B, "config.json"))
    layer = config.layers[-1]
    assert layer.moe == MoeConfig(
        num_experts=8, experts_per_token=2, ffn_size=14336, renormalize=True
    )
    assert layer.window is None


def test_names_of_experts() -> None:
    config = read_config(HFConfig(MIXTRAL_8X7B, "config.json"))
    expected = {
        "model.layers.0.mlp.gate.weight": "model.layers.0.block_sparse_moe.gate.weight",
        "model.layers.0.mlp.experts.3.gate_proj.weight": (
            "model.layers.0.block_sparse_moe.experts.3.w1.weight"
        ),
        "model.layers.0.mlp.experts.3.down_proj.weight": (
            "model.layers.0.block_sparse_moe.experts.3.w2.weight"
        ),
        "model.layers.0.mlp.experts.3.up_proj.weight": (
            "model.layers.0.block_sparse_moe.experts.3.w3.weight"
        ),
        "model.layers.0.self_attn.q_proj.weight": "model.layers.0.self_attn.q_proj.weight",
    }
    for ours, theirs in expected.items():
        assert source_of(ours, config).name == theirs
