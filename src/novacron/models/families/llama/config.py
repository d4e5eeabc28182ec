"""Llama 2, 3, 3.1, 3.2 (text) and 3.3, and the many models that call themselves Llama."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig
from novacron.models.families.llama_like import llama_like, read_rope, same_layers
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    has_bias = hf.flag("attention_bias", False)
    return llama_like(
        hf,
        layers=same_layers(hf, rope=read_rope(hf)),
        qkv_bias=has_bias,
        output_bias=has_bias,
        ffn_bias=hf.flag("mlp_bias", False),
    )
