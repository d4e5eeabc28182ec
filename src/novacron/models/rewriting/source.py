"""What a folder is written from, whatever its layout: weights, settings, and what lies beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from novacron.models.gguf_config import read_gguf_config
from novacron.models.gguf_eos import read_gguf_eos_token_ids
from novacron.models.gguf_model import GGUFModel
from novacron.models.rewriting.recipe import SECTION
from novacron.models.weight_files import WeightFiles

_NOT_COPIED = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
)
_NOT_NAMES = frozenset(
    {"config.json", "quantize.json", "quantize_config.json", "quant_config.json"}
)
_ROUNDING = ("quantization_config", SECTION)  # what config.json says of numbers that will be others


@dataclass(frozen=True, kw_only=True)
class RewritingSource:
    """`config` is the content of config.json, without what is said of rounding; `copied` are files
    that go along as they are, and `written` texts by the names of files, where there is none."""

    weights: WeightFiles
    config: Mapping[str, Any]
    copied: tuple[Path, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)


def folder_source(folder: Path, weights: WeightFiles) -> RewritingSource:
    """A Hugging Face folder: tokenizer, templates and licence are copied."""
    config = json.loads((folder / "config.json").read_text())
    return RewritingSource(
        weights=weights,
        config={key: value for key, value in config.items() if key not in _ROUNDING},
        copied=tuple(path for path in sorted(folder.iterdir()) if _goes_along(path)),
    )


def gguf_source(path: Path, weights: WeightFiles, beside: Mapping[str, str]) -> RewritingSource:
    """A GGUF file, which has everything in it; `beside` are the texts of the tokenizer's files."""
    file = GGUFModel(path)
    config = {
        **read_gguf_config(file).values,
        "eos_token_id": list(read_gguf_eos_token_ids(file)),
        "dtype": weights.dtype,
    }
    return RewritingSource(weights=weights, config=config, written=beside)


def _goes_along(path: Path) -> bool:
    says_what_weights_are = path.name in _NOT_NAMES or path.name.endswith(".index.json")
    return path.is_file() and not says_what_weights_are and path.suffix not in _NOT_COPIED
