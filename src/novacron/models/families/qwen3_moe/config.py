"""Qwen 3 with experts: Qwen 3 attention, many small experts, none shared."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig, MoeConfig
from novacron.models.families.llama_like import llama_like, read_rope, same_layers
from novacron.models.families.qwen2_moe.config import with_experts
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    moe = MoeConfig(
        num_experts=hf.size("num_experts", hf.size("num_local_experts", 128)),
        experts_per_token=hf.size("num_experts_per_tok", 8),
        ffn_size=hf.size("moe_intermediate_size", 768),
        renormalize=hf.flag("norm_topk_prob", False),
    )
    has_bias = hf.flag("attention_bias", False)
    window = hf.integer("sliding_window", 4096) if hf.flag("use_sliding_window", False) else None
    layers = same_layers(hf, rope=read_rope(hf), window=window)
    return llama_like(
        hf,
        layers=with_experts(hf, layers, moe),
        qkv_bias=has_bias,
        output_bias=has_bias,
        qk_norm=True,
    )
