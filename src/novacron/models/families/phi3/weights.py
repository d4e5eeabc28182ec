"""Phi checkpoints hold queries, keys and values in one tensor, and gate and up in another."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig
from novacron.models.weight_slots import Source


def source_of(name: str, config: DecoderConfig) -> Source:
    prefix, _, rest = name.rpartition(".self_attn.")
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    first_rows = {"q_proj.weight": 0, "k_proj.weight": queries, "v_proj.weight": queries + keys}
    if prefix and rest in first_rows:
        packed = f"{prefix}.self_attn.qkv_proj.weight"
        return Source(packed, first_rows[rest], queries + 2 * keys)
    prefix, _, rest = name.rpartition(".mlp.")
    first_rows = {"gate_proj.weight": 0, "up_proj.weight": config.ffn_size}
    if prefix and rest in first_rows:
        packed = f"{prefix}.mlp.gate_up_proj.weight"
        return Source(packed, first_rows[rest], 2 * config.ffn_size)
    return Source(name)
