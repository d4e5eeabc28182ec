"""Phi 3, 3.5 and 4 (text): Llama with packed projections; longrope and partial rotation in some."""

from __future__ import annotations

from dataclasses import replace

from novacron.models.decoder_config import DecoderConfig
from novacron.models.families.llama_like import llama_like, read_longrope, read_rope, same_layers
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    rope = read_rope(hf)
    values = hf.section("rope_parameters" if hf.has("rope_parameters") else "rope_scaling")
    if values.has("short_factor"):  # early files call longrope "su" or even "yarn"
        rope = replace(rope, scaling=read_longrope(hf, values))
    window = hf.optional_integer("sliding_window")
    return llama_like(hf, layers=same_layers(hf, rope=rope, window=window))
