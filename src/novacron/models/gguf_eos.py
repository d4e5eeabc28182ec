"""The tokens that end a text, as a GGUF file names them. No torch."""

from __future__ import annotations

from novacron.models.gguf_model import GGUFModel
from novacron.models.hf_config import HFConfig

_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))


def read_gguf_eos_token_ids(file: GGUFModel) -> tuple[int, ...]:
    """Those of a text, a turn and a message. Raises ModelLoadError."""
    metadata = HFConfig(file.metadata, str(file.path))
    return tuple(dict.fromkeys(metadata.integer(key) for key in _KEYS if metadata.has(key)))
