"""Names in Gemma 3 checkpoints that hold a vision tower too."""

from __future__ import annotations

from novacron.models.decoder_config import DecoderConfig
from novacron.models.weight_slots import Source

IGNORED_PREFIXES = ("vision_tower.", "multi_modal_projector.")


def multimodal_source(name: str, config: DecoderConfig) -> Source:
    return Source(f"language_model.{name}")
