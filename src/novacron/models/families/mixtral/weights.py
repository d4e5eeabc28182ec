"""Names of experts in Mixtral checkpoints."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig
from novacron.models.weight_slots import Source

_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def source_of(name: str, config: DecoderConfig) -> Source:
    for ours, theirs in _NAMES.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return Source(name.replace(".mlp.", ".block_sparse_moe."))
