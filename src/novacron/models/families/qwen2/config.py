"""Qwen 2 and 2.5: biases on queries, keys and values; optional sliding window in upper layers."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig, LayerConfig
from novacron.models.families.llama_like import llama_like, read_rope, windows_by_layer
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    return llama_like(hf, layers=read_layers(hf), qkv_bias=True)


def read_layers(hf: HFConfig, default_head_dim: int | None = None) -> tuple[LayerConfig, ...]:
    """Layers of Qwen: the window applies from `max_window_layers` on, and only if switched on."""
    rope = read_rope(hf, default_head_dim=default_head_dim)
    window = hf.integer("sliding_window", 4096) if hf.flag("use_sliding_window", False) else None
    first = hf.integer("max_window_layers", 28)
    slides = [index >= first for index in range(hf.size("num_hidden_layers"))]
    windows = windows_by_layer(hf, window, slides)
    return tuple(LayerConfig(rope=rope, window=window) for window in windows)
