"""The texts that variants are compared on: chats of the bundled model's tasks, or a user's file.

The bundled model was trained to expect answers, not questions; so only answers are judged. Of any
other text, all but a window's first token is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import blake3
import msgspec

from novacron.demo.examples import Example
from novacron.demo.tasks import TASKS, held_out_examples
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError
from novacron.quality.document import Document

_LEAST_TOKENS = 2  # one to see, one to judge


def demo_documents(
    tokenizer: Tokenizer, count: int, seed: int, tasks: Sequence[str] = tuple(TASKS)
) -> tuple[Document, ...]:
    """`count` held-out chats with their right answers, of all tasks alike; the same for the same
    arguments."""
    rounds = -(-count // len(tasks))
    by_task = [held_out_examples(task, rounds, seed) for task in tasks]
    in_turns = [example for turn in zip(*by_task, strict=True) for example in turn]
    return tuple(_chat(tokenizer, example) for example in in_turns[:count])


def file_documents(
    tokenizer: Tokenizer, path: Path, *, window: int, count: int
) -> tuple[Document, ...]:
    """The first `count` windows of a text, each of `window` tokens, none of which is in two.

    Raises ConfigError if it cannot be read, or is too short.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no text to compare variants on: {error}.") from error
    windows = cut_windows(tokenizer.encode(text, parse_special=False), window, count)
    if not windows:
        raise ConfigError(f"{path} has fewer than {_LEAST_TOKENS} tokens: give a longer text.")
    return windows


def cut_windows(token_ids: Sequence[int], window: int, count: int) -> tuple[Document, ...]:
    """Pieces of `window` tokens, and the rest if there is something to judge in it."""
    pieces = (
        tuple(token_ids[start : start + window])
        for start in range(0, min(len(token_ids), window * count), window)
    )
    return tuple(Document(piece, 1) for piece in pieces if len(piece) >= _LEAST_TOKENS)


def digest(documents: Sequence[Document]) -> str:
    """Names the corpus: results of the same digest were taken on the same tokens."""
    return blake3.blake3(msgspec.json.encode(documents)).hexdigest(8)


def _chat(tokenizer: Tokenizer, example: Example) -> Document:
    messages = [{"role": one.role, "content": one.content} for one in example.messages]
    prompt = tokenizer.apply_chat_template(messages)
    answer = tokenizer.encode(example.answer, add_special_tokens=False, parse_special=False)
    end = tokenizer.eos_token_ids[:1]
    return Document((*prompt, *answer, *end), len(prompt))
