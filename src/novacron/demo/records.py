"""Lists of key-value records and the questions about them, sized in tokens.

Token counts are estimates: a word, a number's digit or a mark each count as one, which is what the
bundled tokenizer makes of this text in nearly all cases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Final

from novacron.demo.facts import CITIES, PEOPLE, WORDS
from novacron.demo.phrasing import capitalise

_PIECE: Final = re.compile(r" ?\d| ?[A-Za-z]+| ?[^A-Za-z\d\s]+|\s")

_INTROS: Final = (
    "Here are some records.",
    "Remember these records.",
    "Read this list.",
    "Data:",
    "Records:",
    "This is a table of values.",
    "Here is a list of keys and values.",
    "Use the following records.",
)

_QUESTIONS: Final = (
    "what is the value of {k}?",
    "what is the value of {k}?",
    "what is the value for {k}?",
    "which value does {k} have?",
    "tell me the value of {k}.",
    "look up {k}.",
    "find the value of {k}.",
    "what does the list say about {k}?",
    "what is stored under {k}?",
    "give me the value of {k}.",
    "and what is the value of {k}?",
    "i need the value of {k}.",
)


@dataclass(frozen=True)
class RecordFormat:
    """How records are written: each with `record`, joined by `joiner`, between two ends."""

    record: str
    joiner: str
    start: str = ""
    end: str = ""


FORMATS: Final = (
    RecordFormat("- {k}: {v}", "\n"),
    RecordFormat("{k}: {v}", ", ", end="."),
    RecordFormat("{k} = {v}", "; ", end="."),
    RecordFormat("{k} is {v}", ", ", end="."),
    RecordFormat("The value of {k} is {v}.", " "),
    RecordFormat("{k}: {v}", "\n"),
    RecordFormat('"{k}": "{v}"', ", ", start="{", end="}"),
)


@dataclass(frozen=True)
class RecordMix:
    """How often each of `FORMATS` is drawn, and how often all keys of a list have two words."""

    format_weights: tuple[int, ...] = (3, 2, 1, 2, 2, 1, 1)
    two_words: float = 0.2


RECORD_MIX: Final = RecordMix()


@dataclass(frozen=True)
class RecordList:
    """Records with distinct keys and the text that lists them."""

    keys: tuple[str, ...]
    values: tuple[str, ...]
    form: RecordFormat
    text: str


def estimate_tokens(text: str) -> int:
    return len(_PIECE.findall(text))


def _draw_value(kind: int, rng: Random) -> str:
    if kind == 0:
        return str(rng.randint(1000, 9999))
    if kind == 1:
        return str(rng.randint(10, 999))
    if kind == 2:
        return rng.choice(WORDS)
    return rng.choice(PEOPLE if rng.random() < 0.5 else CITIES)


def _draw_keys(count: int, two_words: float, rng: Random) -> list[str]:
    """Distinct keys: single words while they last, else (or at times) two words."""
    singles = [] if rng.random() >= 1 - two_words else rng.sample(WORDS, min(count, len(WORDS)))
    numbers = rng.sample(range(len(WORDS) ** 2), count - len(singles))
    return singles + [f"{WORDS[n // len(WORDS)]} {WORDS[n % len(WORDS)]}" for n in numbers]


def draw_records(rng: Random, tokens: int, mix: RecordMix = RECORD_MIX) -> RecordList:
    """Records whose text has about `tokens` tokens, and never more than that plus one record."""
    form = rng.choices(FORMATS, mix.format_weights)[0]
    kind = rng.choices(range(4), weights=(5, 2, 3, 1))[0]
    keys = _draw_keys(max(2, tokens // 4), mix.two_words, rng)
    parts: list[str] = []
    values: list[str] = []
    size = estimate_tokens(form.start + form.end)
    for key in keys:
        value = _draw_value(kind, rng)
        parts.append(form.record.format(k=key, v=value))
        values.append(value)
        size += estimate_tokens(parts[-1] + form.joiner.strip(" "))
        if size >= tokens and len(parts) > 1:
            break
    text = form.start + form.joiner.join(parts) + form.end
    return RecordList(tuple(keys[: len(parts)]), tuple(values), form, text)


def introduce(records: RecordList, rng: Random) -> str:
    """The records with a line before them, or without one."""
    if rng.random() < 0.3:
        return records.text
    return f"{rng.choice(_INTROS)}\n{records.text}"


def ask_for_value(key: str, rng: Random) -> str:
    question = rng.choice(_QUESTIONS).format(k=key)
    return question if rng.random() < 0.1 else capitalise(question)


def state_value(key: str, value: str) -> str:
    return f"The value of {key} is {value}."
