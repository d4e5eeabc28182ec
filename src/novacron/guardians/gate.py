"""Text of a stream that waits for guardians who judge it in pieces. Pure."""

from __future__ import annotations


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

    def release(self) -> str:
        """What was held, once `text` was judged to be in order."""
        held = self._text[self._num_out :]
        self._num_out = len(self._text)
        return held
