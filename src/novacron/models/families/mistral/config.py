"""Mistral 7B and its successors with the same architecture: Llama with a sliding window."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig
from novacron.models.families.llama_like import llama_like, read_rope, same_layers
from novacron.models.hf_config import HFConfig


def read_config(hf: HFConfig) -> DecoderConfig:
    window = hf.optional_integer("sliding_window")
    return llama_like(hf, layers=same_layers(hf, rope=read_rope(hf), window=window))
