"""Training rows: chats of short tasks, and lists of records with many questions.

Everything is drawn from a `Random` seeded with the step, so the data position is the step number.
Only answers carry loss. Rows hold several documents one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from torch import Tensor

from demo_training.tokenizer import ChatEncoder
from novacron.demo.chat_texts import SYSTEM_PROMPTS
from novacron.demo.examples import Example, Message, is_held_out
from novacron.demo.records import (
    RecordList,
    RecordMix,
    ask_for_value,
    draw_records,
    introduce,
    state_value,
)
from novacron.demo.tasks import (
    FACT_TABLES,
    RETRIEVAL_TOKENS,
    ask_for_copy,
    draw_pieces,
    training_example,
)

# How often a short document is about a task, relative to the others.
SHORT_TASK_WEIGHTS: Final = {
    "capitals": 8.0,
    "currencies": 8.0,
    "reverse_capitals": 6.0,
    "continents": 4.0,
    "element_symbols": 2.0,
    "element_numbers": 2.0,
    "opposites": 3.0,
    "plurals": 2.0,
    "follow_ups": 3.0,
    "next_in_order": 1.5,
    "addition": 9.0,
    "addition_mixed": 5.0,
    "addition_large": 4.0,
    "subtraction": 8.0,
    "multiplication": 4.0,
    "small_talk": 6.0,
    "novacron": 4.0,
    "unknown": 4.0,
    "json_make": 16.0,
    "json_read": 6.0,
    "copy": 18.0,
    "reverse": 5.0,
    "sort": 5.0,
    "retrieval_64": 4.0,
}

# Lists in quotes and keys of two words are the hardest to learn, so training sees more of them than
# the test asks for.
TRAINING_RECORDS: Final = RecordMix(format_weights=(3, 2, 1, 2, 2, 2, 4), two_words=0.3)

SYSTEM_FRACTION: Final = 0.15
FOLLOWING_TURN_FRACTION: Final = 0.35
STATEMENT_FRACTION: Final = 0.03
LONG_COPY_FRACTION: Final = 0.1
DENSE_FRACTION: Final = 0.5
SMALLEST_CONTEXT: Final = 16
SMALLEST_RETRIEVAL: Final = 48


@dataclass(frozen=True)
class RowShape:
    """A batch of `rows` rows of `tokens` tokens."""

    rows: int
    tokens: int


SHORT_ROWS: Final = RowShape(12, 256)
RETRIEVAL_ROWS: Final = (
    RowShape(9, 256),
    RowShape(4, 576),
    RowShape(2, 1152),
    RowShape(1, 2304),
)


class Document:
    """Token ids of one document and the loss weight of each."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self._encoder = encoder
        self.ids = [encoder.bos]
        self.weights = [0.0]

    def _extend(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def add_text(self, text: str, weight: float) -> None:
        self._extend(self._encoder.text(text), weight)

    def add_message(self, message: Message) -> None:
        """A message; the assistant's text and its end carry loss, all else none."""
        answer = message.role == "assistant"
        ids = self._encoder.message(message)
        self._extend(ids[:1], 0.0)
        self._extend(ids[1:], 1.0 if answer else 0.0)

    def add_example(self, example: Example) -> None:
        for message in (*example.messages, Message("assistant", example.answer)):
            self.add_message(message)

    def open_role(self, role: str) -> None:
        self._extend([self._encoder.role[role]], 0.0)

    def close(self, weight: float) -> None:
        self._extend([self._encoder.end], weight)


def _maybe_system(document: Document, rng: Random) -> None:
    if rng.random() < SYSTEM_FRACTION:
        document.add_message(Message("system", rng.choice(SYSTEM_PROMPTS)))


def short_document(encoder: ChatEncoder, rng: Random) -> Document:
    """A chat of one to four exchanges over the short tasks, or one plain statement."""
    document = Document(encoder)
    if rng.random() < STATEMENT_FRACTION:
        table = rng.choice(list(FACT_TABLES.values()))
        document.add_text(rng.choice(table.facts).sentence, 1.0)
        document.close(1.0)
        return document
    _maybe_system(document, rng)
    names, weights = list(SHORT_TASK_WEIGHTS), list(SHORT_TASK_WEIGHTS.values())
    for turn in range(4):
        if turn and rng.random() >= FOLLOWING_TURN_FRACTION:
            break
        document.add_example(training_example(rng.choices(names, weights)[0], rng))
    return document


def _training_records(rng: Random, tokens: int) -> RecordList:
    while True:
        records = draw_records(rng, tokens, TRAINING_RECORDS)
        if not is_held_out(records.text):
            return records


def _pairs_forever(records: RecordList, rng: Random) -> Iterator[tuple[str, str]]:
    pairs = list(zip(records.keys, records.values, strict=True))
    while True:
        rng.shuffle(pairs)
        yield from pairs


def dense_document(encoder: ChatEncoder, rng: Random, context: int, size: int) -> Document:
    """Records, then the same records again in another order, with loss on the values.

    One decision in a few tokens: this is what makes retrieval form early.
    """
    document = Document(encoder)
    records = _training_records(rng, context)
    document.add_message(
        Message("user", f"{introduce(records, rng)}\nList the records in another order.")
    )
    document.open_role("assistant")
    long_form = rng.random() < 0.5
    for key, value in _pairs_forever(records, rng):
        if len(document.ids) >= size:
            break
        if long_form:
            document.add_text(f" The value of {key} is", 0.0)
            document.add_text(f" {value}.", 1.0)
        else:
            document.add_text(f" {key}:", 0.0)
            document.add_text(f" {value},", 1.0)
    document.close(0.0)
    return document


def question_document(encoder: ChatEncoder, rng: Random, context: int, size: int) -> Document:
    """A chat about one list of records, with questions until `size` tokens are reached."""
    document = Document(encoder)
    records = _training_records(rng, context)
    text = introduce(records, rng)
    if rng.random() < 0.2:
        document.add_message(Message("system", text))
        text = ""
    else:
        _maybe_system(document, rng)
        text += "\n"
    for key, value in _pairs_forever(records, rng):
        if len(document.ids) >= size:
            break
        document.add_message(Message("user", text + ask_for_value(key, rng)))
        document.add_message(Message("assistant", state_value(key, value)))
        text = ""
    return document


def copy_document(encoder: ChatEncoder, rng: Random, size: int) -> Document:
    """A text of about half of `size` tokens and its copy, at most 200 tokens each."""
    document = Document(encoder)
    while True:
        text = draw_pieces(rng, max(2, min(80, size // 6)))
        if not is_held_out(text):
            break
    document.add_message(Message("user", ask_for_copy(text, rng)))
    document.add_message(Message("assistant", text))
    return document


def retrieval_document(encoder: ChatEncoder, rng: Random, size: int) -> Document:
    """A list of records that takes a third to nine tenths of `size` tokens, and questions.

    Now and then a long text to copy instead, which exercises the same attention.
    """
    if rng.random() < LONG_COPY_FRACTION:
        return copy_document(encoder, rng, size)
    context = int(size * rng.uniform(0.35, 0.9))
    context = min(max(context, SMALLEST_CONTEXT), RETRIEVAL_TOKENS[-1])
    make = dense_document if rng.random() < DENSE_FRACTION else question_document
    return make(encoder, rng, context, size)


def _fill_row(encoder: ChatEncoder, rng: Random, tokens: int, retrieval: bool) -> Document:
    row = Document(encoder)
    row.ids, row.weights = [], []
    first = True
    while len(row.ids) < tokens:
        left = tokens - len(row.ids)
        if retrieval and left > SMALLEST_RETRIEVAL:
            whole = first and tokens > 256 and rng.random() < 0.8
            size = left if whole else rng.randint(SMALLEST_RETRIEVAL, left)
            document = retrieval_document(encoder, rng, size)
        else:
            document = short_document(encoder, rng)
        row.ids += document.ids
        row.weights += document.weights
        first = False
    return row


def make_batch(
    encoder: ChatEncoder, rng: Random, shape: RowShape, retrieval: bool
) -> tuple[Tensor, Tensor]:
    """Ids and weights, each [rows, tokens + 1]: the model reads all but the last token."""
    rows = [_fill_row(encoder, rng, shape.tokens + 1, retrieval) for _ in range(shape.rows)]
    ids = torch.tensor([row.ids[: shape.tokens + 1] for row in rows])
    weights = torch.tensor([row.weights[: shape.tokens + 1] for row in rows])
    return ids, weights


def tokenizer_texts(seed: int, count: int) -> Iterator[str]:
    """Texts on which the tokenizer is trained: mostly short tasks, some records."""
    rng = Random(f"tokenizer/{seed}")
    names, weights = list(SHORT_TASK_WEIGHTS), list(SHORT_TASK_WEIGHTS.values())
    for _ in range(count):
        example = training_example(rng.choices(names, weights)[0], rng)
        yield from (message.content for message in example.messages)
        yield example.answer
        if rng.random() < 0.1:
            yield _training_records(rng, 128).text
