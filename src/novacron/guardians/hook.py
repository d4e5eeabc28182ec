"""A guardian of one's own, elsewhere: each text goes to an address that answers with a verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import blake3
import msgspec

from novacron.guardians.guardian import Duty
from novacron.guardians.records import Outcome, Span, Subject, Verdict

Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[bytes]]
"""Address, JSON and headers -> the body of an answer with status 200. Raises for any other."""

_LONGEST_REASON: Final = 64
_OUTCOMES: Final = {
    "pass": Outcome.PASS,
    "flag": Outcome.FLAG,
    "mask": Outcome.MASK,
    "block": Outcome.BLOCK,
}


class _Sent(msgspec.Struct, frozen=True):
    guardian: str
    stage: str
    text: str
    asked: str
    is_whole: bool


class _Span(msgspec.Struct, frozen=True):
    start: int
    end: int
    kind: str = "TEXT"


class _Answer(msgspec.Struct, frozen=True):
    verdict: str
    score: float | None = None
    reason: str = ""
    spans: tuple[_Span, ...] = ()


class Hook:
    """Posts `{guardian, stage, text, asked, is_whole}` and expects `{verdict, score?, reason?,
    spans?}`, where verdict is pass, flag, mask or block. Anything else is an error."""

    def __init__(self, duty: Duty, post: Post, url: str, token: str = "") -> None:
        self._duty = duty
        self._post = post
        self._url = url
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    @property
    def duty(self) -> Duty:
        return self._duty

    @property
    def version(self) -> str:
        return "1:" + blake3.blake3(self._url.encode()).hexdigest(8)

    async def judge(self, subject: Subject) -> Verdict:
        sent = _Sent(
            self._duty.name, subject.stage.value, subject.text, subject.asked, subject.is_whole
        )
        data = await self._post(self._url, msgspec.json.encode(sent), self._headers)
        answer = msgspec.json.decode(data, type=_Answer)
        outcome = _OUTCOMES[answer.verdict]
        spans = tuple(_checked(span, len(subject.text)) for span in answer.spans)
        if outcome is Outcome.MASK and not spans:
            raise ValueError("the hook wants to mask, but names no spans")
        score = answer.score if answer.score is not None else float(outcome < Outcome.MASK)
        reason = _code(answer.reason)
        return Verdict(self._duty.name, outcome, min(1.0, max(0.0, score)), reason, spans)


def _checked(span: _Span, length: int) -> Span:
    if not 0 <= span.start < span.end <= length:
        raise ValueError("the hook names a span that is not in the text")
    return Span(span.start, span.end, _code(span.kind).upper() or "TEXT")


def _code(text: str) -> str:
    """What goes to clients and logs has to be a code, not a piece of what was judged."""
    kept = "".join(char if char.isalnum() else "_" for char in text[:_LONGEST_REASON])
    return kept.strip("_").lower() if kept.isascii() else ""
