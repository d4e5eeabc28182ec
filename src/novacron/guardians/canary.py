"""Questions whose answers are known, asked now and then beside the traffic: does the model still
know them?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from novacron.guardians.guardian import Duty
from novacron.guardians.judge import Ask, Question
from novacron.guardians.records import Outcome, Subject, Verdict

_REMEMBERED: Final = 20


@dataclass(frozen=True)
class KnownAnswer:
    """A right answer holds `answer`, in any case."""

    question: str
    answer: str


class Canary:
    """Each time it is its turn, asks the next question. The score is the share of right answers
    among the last 20; below `floor` that is a finding. What the call itself said does not
    matter."""

    def __init__(self, duty: Duty, ask: Ask, known: Sequence[KnownAnswer], floor: float) -> None:
        assert known
        self._duty = duty
        self._ask = ask
        self._known = tuple(known)
        self._floor = floor
        self._turn = 0
        self._right: deque[bool] = deque(maxlen=_REMEMBERED)

    @property
    def duty(self) -> Duty:
        return self._duty

    @property
    def version(self) -> str:
        return "1"

    async def judge(self, subject: Subject) -> Verdict:
        one = self._known[self._turn % len(self._known)]
        self._turn += 1
        said = await self._ask(Question(system="", text=one.question, max_tokens=64))
        self._right.append(one.answer.lower() in said.lower())
        score = sum(self._right) / len(self._right)
        if score < self._floor:
            return Verdict(self._duty.name, self._duty.action, score, "wrong_answers")
        return Verdict(self._duty.name, Outcome.PASS, score)
