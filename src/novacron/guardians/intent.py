"""Whether an answer is about what was asked: how near both are as vectors of the model."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from novacron.guardians.guardian import Duty
from novacron.guardians.records import Outcome, Subject, Verdict

Embed = Callable[[Sequence[str], str], Awaitable[Sequence[Sequence[float]]]]
"""Texts and the tenant they belong to -> a vector for each."""

_MOST_CHARACTERS: Final = 4000  # of each text


class IntentAlignment:
    """The cosine of question and answer, 0 where it is negative, against a `floor`.

    The floor depends on the model: measure it on answers that are known to be good.
    """

    def __init__(self, duty: Duty, embed: Embed, floor: float) -> None:
        self._duty = duty
        self._embed = embed
        self._floor = floor

    @property
    def duty(self) -> Duty:
        return self._duty

    @property
    def version(self) -> str:
        return f"1:{self._floor}"

    async def judge(self, subject: Subject) -> Verdict:
        name = self._duty.name
        if not subject.asked.strip() or not subject.text.strip():
            return Verdict(name, Outcome.PASS, 1.0, "nothing_to_compare")
        pair = (subject.asked[:_MOST_CHARACTERS], subject.text[:_MOST_CHARACTERS])
        asked, answered = await self._embed(pair, subject.tenant)
        score = max(0.0, cosine(asked, answered))
        if score < self._floor:
            return Verdict(name, self._duty.action, score, "off_topic")
        return Verdict(name, Outcome.PASS, score)


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """0 for a vector without length. Raises ValueError for vectors of different lengths."""
    product = math.fsum(a * b for a, b in zip(first, second, strict=True))
    lengths = math.sqrt(math.fsum(a * a for a in first) * math.fsum(b * b for b in second))
    return product / lengths if lengths else 0.0
