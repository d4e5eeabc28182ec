"""The token ids of texts that a method of rounding is shown."""

from __future__ import annotations

from pathlib import Path

from novacron.config.model import ModelConfig
from novacron.demo.calibration import calibration_chats
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError

_PER_TASK = 8
_TOKENS_EACH = 512
_MOST_TEXTS = 128


def calibration_texts(
    model: ModelConfig, path: Path, file: Path | None
) -> tuple[tuple[int, ...], ...]:
    """Those of a file, in pieces; for the bundled model, without one, chats of its tasks. Raises
    ConfigError and ModelLoadError."""
    template = Path(model.chat_template) if model.chat_template else None
    tokenizer = Tokenizer.load(Path(model.tokenizer or path), template)
    if file is None:
        if model.model:
            raise ConfigError(
                "The method gptq has to see text like that which the model will get: give a text "
                "file with --calibration. 50,000 words are plenty."
            )
        chats = ([message._asdict() for message in chat] for chat in calibration_chats(_PER_TASK))
        return tuple(
            tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=False))
            for chat in chats
        )
    try:
        text = file.read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as text: {error}.") from error
    token_ids = tokenizer.encode(text, parse_special=False)
    starts = range(0, len(token_ids), _TOKENS_EACH)[:_MOST_TEXTS]
    return tuple(tuple(token_ids[start : start + _TOKENS_EACH]) for start in starts)
