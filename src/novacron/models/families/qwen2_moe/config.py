"""Qwen 1.5 and 2 with experts: many small ones, and one shared by all tokens behind a gate."""

from __future__ import annotations

from dataclasses import replace

from novacron.models.decoder_config import DecoderConfig, LayerConfig, MoeConfig
from novacron.models.families.llama_like import llama_like, read_rope, windows_by_layer
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    moe = MoeConfig(
        num_experts=hf.size("num_experts", 60),
        experts_per_token=hf.size("num_experts_per_tok", 4),
        ffn_size=hf.size("moe_intermediate_size", 1408),
        renormalize=hf.flag("norm_topk_prob", False),
        shared_ffn_size=hf.size("shared_expert_intermediate_size", 5632),
    )
    return llama_like(
        hf,
        layers=with_experts(hf, _read_layers(hf), moe),
        qkv_bias=hf.flag("qkv_bias", True),
    )


def with_experts(
    hf: HFConfig, layers: tuple[LayerConfig, ...], moe: MoeConfig
) -> tuple[LayerConfig, ...]:
    """Every `decoder_sparse_step`-th layer gets experts, those in `mlp_only_layers` none."""
    step, dense = hf.size("decoder_sparse_step", 1), hf.integers("mlp_only_layers")
    return tuple(
        layer if index in dense or (index + 1) % step else replace(layer, moe=moe)
        for index, layer in enumerate(layers)
    )


def _read_layers(hf: HFConfig) -> tuple[LayerConfig, ...]:
    rope = read_rope(hf)
    window = hf.integer("sliding_window", 4096) if hf.flag("use_sliding_window", False) else None
    last = hf.integer("max_window_layers", 28)
    slides = [index % 2 == 0 and index < last for index in range(hf.size("num_hidden_layers"))]
    windows = windows_by_layer(hf, window, slides)
    return tuple(LayerConfig(rope=rope, window=window) for window in windows)
