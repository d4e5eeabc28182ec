"""Gemma 3, text only: five windowed layers to a full one, each kind with its own rope.

The larger models are published with a vision tower; their text part is used, the tower ignored.
"""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig, LayerConfig, RopeConfig
from novacron.models.families.llama_like import (
    llama_like,
    read_head_dim,
    read_rope,
    windows_by_layer,
)
from novacron.models.hf_config import HFConfig

_HEAD_DIM = 256
_LOCAL_THETA = 10_000.0
_GLOBAL_THETA = 1_000_000.0

# What published multimodal files leave out of their text section.
_TEXT_DEFAULTS = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}


def read_multimodal_config(hf: HFConfig) -> DecoderConfig:
    return read_config(hf.section("text_config").with_defaults(_TEXT_DEFAULTS))


def read_config(hf: HFConfig) -> DecoderConfig:
    if hf.flag("use_bidirectional_attention", False):
        raise hf.error("'use_bidirectional_attention' is set; only causal models are supported")
    has_bias = hf.flag("attention_bias", False)
    return llama_like(
        hf,
        layers=_read_layers(hf),
        default_head_dim=_HEAD_DIM,
        default_activation="gelu_pytorch_tanh",
        tied_by_default=True,
        attention_scale=hf.number("query_pre_attn_scalar", 256.0) ** -0.5,
        attention_softcap=hf.optional_number("attn_logit_softcapping"),
        logit_softcap=hf.optional_number("final_logit_softcapping"),
        embedding_scale=hf.size("hidden_size") ** 0.5,
        qkv_bias=has_bias,
        output_bias=has_bias,
        qk_norm=True,
        norm_offset=True,
        sandwich_norms=True,
    )


def _read_layers(hf: HFConfig) -> tuple[LayerConfig, ...]:
    pattern = hf.size("sliding_window_pattern", hf.size("_sliding_window_pattern", 6))
    slides = [(index + 1) % pattern != 0 for index in range(hf.size("num_hidden_layers"))]
    windows = windows_by_layer(hf, hf.integer("sliding_window", 4096), slides)
    everywhere = read_rope(
        hf,
        layer_type="full_attention",
        default_theta=_GLOBAL_THETA,
        default_head_dim=_HEAD_DIM,
    )
    nearby = _local_rope(hf)
    return tuple(
        LayerConfig(rope=everywhere if window is None else nearby, window=window)
        for window in windows
    )


def _local_rope(hf: HFConfig) -> RopeConfig:
    """Windowed layers never share the scaling of full ones; older files name only their theta."""
    if hf.has("rope_parameters"):
        return read_rope(
            hf,
            layer_type="sliding_attention",
            default_theta=_LOCAL_THETA,
            default_head_dim=_HEAD_DIM,
        )
    theta = hf.number("rope_local_base_freq", _LOCAL_THETA)
    return RopeConfig(theta=theta, rotary_dim=read_head_dim(hf, _HEAD_DIM))
