"""The tokenizer of a GGUF file as the files that a folder has for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from novacron.config.model import ModelConfig
from novacron.engine.gguf_tokenizer import read_gguf_tokenizer
from novacron.engine.tokenization import Tokenizer

_NAMES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja",
)  # fmt: skip


def tokenizer_files(model: ModelConfig, path: Path) -> Mapping[str, str]:
    """Texts by name: those of --tokenizer, else those beside the file, else what is in it. None for
    a folder, which has them. Raises ModelLoadError."""
    if not path.is_file():
        return {}
    folder = Path(model.tokenizer) if model.tokenizer else path.parent
    if not model.tokenizer and not (folder / "tokenizer.json").is_file():
        return read_gguf_tokenizer(path).files
    Tokenizer.load(folder)  # says what is wrong with them
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    return {file.name: file.read_text() for file in found}
