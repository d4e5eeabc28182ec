"""Gemma 2: alternating windows, capped scores and logits, norms before and after."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig, LayerConfig
from novacron.models.families.llama_like import llama_like, read_rope, windows_by_layer
from novacron.models.hf_config import HFConfig

_HEAD_DIM = 256


def read_config(hf: HFConfig) -> DecoderConfig:
    has_bias = hf.flag("attention_bias", False)
    rope = read_rope(hf, default_head_dim=_HEAD_DIM)
    slides = [index % 2 == 0 for index in range(hf.size("num_hidden_layers"))]
    windows = windows_by_layer(hf, hf.integer("sliding_window", 4096), slides)
    return llama_like(
        hf,
        layers=tuple(LayerConfig(rope=rope, window=window) for window in windows),
        default_head_dim=_HEAD_DIM,
        default_activation="gelu_pytorch_tanh",
        tied_by_default=True,
        attention_scale=hf.number("query_pre_attn_scalar", 256.0) ** -0.5,
        attention_softcap=hf.optional_number("attn_logit_softcapping"),
        logit_softcap=hf.optional_number("final_logit_softcapping"),
        embedding_scale=hf.size("hidden_size") ** 0.5,
        qkv_bias=has_bias,
        output_bias=has_bias,
        norm_offset=True,
        sandwich_norms=True,
    )
