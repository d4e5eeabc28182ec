"""Text of a stream that waits for guardians who judge it in pieces. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.guardians.masking import Masker
from novacron.guardians.records import Span


class Gate:
    """Lets text through once it was judged, at the latest every `stride` characters.

    Who judges sees all that there is so far, and what passed stays passed: a piece is judged
    together with what came before it. A `stride` of None waits for the end of the text.
    """

    def __init__(self, stride: int | None) -> None:
        self._stride = stride
        self._text = ""
        self._num_out = 0
        self._is_over = False

    @property
    def num_held(self) -> int:
        return len(self._text) - self._num_out

    def push(self, text: str, *, is_last: bool = False) -> None:
        self._text += text
        self._is_over = is_last

    @property
    def is_due(self) -> bool:
        """Whether there is something that has to be judged before more is asked for."""
        if self._is_over:
            return True
        return self._stride is not None and self.num_held >= self._stride

    @property
    def text(self) -> str:
        """All there is: what guardians are to see."""
        return self._text

    def release(self, spans: Sequence[Span] = (), masker: Masker | None = None) -> str:
        """What was held, once `text` was judged to be in order, but for `spans` of it. Of a span
        that has gone out in part, the rest is masked."""
        held = self._text[self._num_out :]
        if masker is not None and spans:
            at = self._num_out
            kept = [Span(max(0, s.start - at), s.end - at, s.kind) for s in spans if s.end > at]
            held = masker.mask(held, kept)
            self._text = self._text[:at] + held
        self._num_out = len(self._text)
        return held
