"""The record of one question with its expected answer, and how an answer is judged."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

HELD_OUT_FRACTION: Final = 0.1

_NUMBER: Final = re.compile(r"\d+")


class Message(NamedTuple):
    """One message of a chat, as the OpenAI API names its parts."""

    role: str
    content: str


class Check(StrEnum):
    """How an answer is compared with the expected one."""

    CONTAINS = "contains"
    LAST_NUMBER = "last_number"
    EXACT = "exact"
    JSON = "json"


@dataclass(frozen=True)
class Example:
    """A chat that ends with a question.

    `answer` is the full text a perfect model gives; `fact` is the part that must be right.
    """

    task: str
    messages: tuple[Message, ...]
    answer: str
    fact: str
    check: Check


def is_correct(example: Example, text: str) -> bool:
    """Whether `text` answers the example, by the rule the example names."""
    text = text.strip()
    if example.check is Check.EXACT:
        return text == example.fact
    if example.check is Check.JSON:
        return _same_json(text, example.fact)
    if example.check is Check.LAST_NUMBER:
        return _NUMBER.findall(text)[-1:] == [example.fact]
    return re.search(rf"(?<!\w){re.escape(example.fact)}(?!\w)", text) is not None


def _same_json(text: str, expected: str) -> bool:
    try:
        return bool(json.loads(text) == json.loads(expected))
    except json.JSONDecodeError:
        return False


def is_held_out(key: str) -> bool:
    """Whether what `key` identifies belongs to the test; stable across runs and machines."""
    digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_FRACTION * 2**32
