"""Tokens to text, piece by piece as they come, and the search for stop strings.

The client of an engine keeps one IncrementalDetokenizer for each stream of tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from novacron.engine.tokenization import Tokenizer

_CONTEXT_TOKENS = 16  # more than any character has bytes, even with special tokens among them


class Piece(NamedTuple):
    """New text, the stop string that ended it, if one did, and the tokens up to there."""

    text: str
    stop: str | None
    num_tokens: int


class IncrementalDetokenizer:
    """Joined pieces, `flush` included, equal the decoded whole up to the first stop string.

    The whole is what the output adds to the prompt: a leading space is kept, and a character begun
    by the prompt is completed. Text is held back while it ends inside a character or could be the
    beginning of a stop string, never longer. Stop strings count if their last character comes from
    a token after the first `min_tokens`. After a stop, further tokens are ignored.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_token_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        stop: tuple[str, ...] = (),
        include_stop_str: bool = False,
        min_tokens: int = 0,
    ) -> None:
        self._vocabulary = tokenizer.vocabulary
        self._skip_special_tokens = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_begun = False
        self._continue_from(prompt_token_ids)
        self._stop = StopSearch(stop, include_stop_str) if stop else None
        self._num_tokens_to_ignore = min_tokens if stop else 0

    def push(self, token_ids: Sequence[int]) -> Piece:
        """Tokens behind the one that completes a stop string are not looked at."""
        if self._stop is None:
            return Piece(self._decode(token_ids), None, len(token_ids))
        shown = ""
        for num_tokens, token_id in enumerate(token_ids, start=1):
            may_stop = self._num_tokens_to_ignore == 0
            self._num_tokens_to_ignore -= not may_stop
            text, stop = self._stop.push(self._decode((token_id,)), search=may_stop)
            shown += text
            if stop is not None:
                return Piece(shown, stop, num_tokens)
        return Piece(shown, None, len(token_ids))

    def flush(self) -> str:
        """The text still held back. The stream has ended without a stop string."""
        tail = self._utf8.decode(b"", final=True)
        return tail if self._stop is None else self._stop.flush(tail)

    def _continue_from(self, prompt_token_ids: Sequence[int]) -> None:
        """Note whether a text has begun, and take over the bytes of a character left open."""
        last = self._visible(prompt_token_ids[-1:])
        if last and self._vocabulary.bytes_of(last[0])[-1:].isascii():
            self._has_begun = True  # and no character is open: the common case
            return
        self._decode(prompt_token_ids[-_CONTEXT_TOKENS:])
        self._has_begun = self._has_begun or bool(self._visible(prompt_token_ids))

    def _decode(self, token_ids: Sequence[int]) -> str:
        if not self._has_begun:
            return self._begin(token_ids)
        data = b"".join(map(self._vocabulary.bytes_of, self._visible(token_ids)))
        return self._utf8.decode(data)

    def _visible(self, token_ids: Sequence[int]) -> list[int]:
        skip = self._skip_special_tokens
        return self._vocabulary.visible(token_ids, skip_special_tokens=skip)

    def _begin(self, token_ids: Sequence[int]) -> str:
        """The first token of a text that stands alone may lose a leading space."""
        visible = self._visible(token_ids)
        if not visible:
            return ""
        self._has_begun = True
        first = self._utf8.decode(self._vocabulary.first_bytes_of(visible[0]))
        return first + self._decode(visible[1:])


class StopSearch:
    """Finds the earliest of several strings in text that comes in pieces.

    Earliest is the one that ends first, and of those that end together the one that begins first:
    the one that a reader, letter by letter, would meet first, wherever the pieces are cut.
    """

    def __init__(self, stop: tuple[str, ...], include: bool) -> None:
        self._stop = stop
        self._include = include
        self._held = ""
        self._found: str | None = None

    def push(self, text: str, *, search: bool = True) -> tuple[str, str | None]:
        """Text that is safe to show, and the string that was found. With `search` off, none may end
        in this text."""
        if self._found is not None:
            return "", self._found
        held = self._held + text
        if search and (hit := self._find(held, len(self._held))) is not None:
            begin, end = hit
            self._found = held[begin:end]
            self._held = ""
            return held[: end if self._include else begin], self._found
        keep = max(_overlap(held, stop) for stop in self._stop)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], None

    def flush(self, tail: str) -> str:
        held, self._held = self._held + tail, ""
        return "" if self._found is not None else held

    def _find(self, held: str, num_old: int) -> tuple[int, int] | None:
        """Begin and end of the earliest stop string that ends after `num_old`."""
        hits = []
        for stop in self._stop:
            begin = held.find(stop, max(0, num_old - len(stop) + 1))
            if begin >= 0:
                hits.append((begin + len(stop), begin))
        if not hits:
            return None
        end, begin = min(hits)
        return begin, end


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` could be the beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
