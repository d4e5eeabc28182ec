"""Mixtral: Mistral with eight experts in every layer, two of them for each token."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig, MoeConfig
from novacron.models.families.llama_like import llama_like, read_rope, same_layers
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    moe = MoeConfig(
        num_experts=hf.size("num_local_experts", 8),
        experts_per_token=hf.size("num_experts_per_tok", 2),
        ffn_size=hf.size("intermediate_size"),
        renormalize=True,
    )
    rope = read_rope(hf, default_theta=1_000_000.0)
    window = hf.optional_integer("sliding_window")
    return llama_like(hf, layers=same_layers(hf, rope=rope, window=window, moe=moe))
