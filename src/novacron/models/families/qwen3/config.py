"""Qwen 3: norms on queries and keys, heads wider than hidden size over heads."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig
from novacron.models.families.llama_like import llama_like
from novacron.models.families.qwen2.config import read_layers
from novacron.models.hf_config import HFConfig

_HEAD_DIM = 128


def read_config(hf: HFConfig) -> DecoderConfig:
    has_bias = hf.flag("attention_bias", False)
    return llama_like(
        hf,
        layers=read_layers(hf, _HEAD_DIM),
        default_head_dim=_HEAD_DIM,
        qkv_bias=has_bias,
        output_bias=has_bias,
        qk_norm=True,
    )
