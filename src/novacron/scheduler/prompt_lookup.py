"""PromptLookup: guesses what comes next from what came after the same tokens before.

Source: prompt lookup decoding (Saxena, 2023), also in vLLM as "ngram"; the index is the hash chain
of LZ77 compressors (RFC 1951, section 4), and so is copying from text not yet written.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

_MAX_CANDIDATES: Final = 16  # of equal beginnings, so that a step's work is bounded


class PromptLookup:
    """The tokens of one request, indexed as they come. Each costs O(1), a guess as well."""

    def __init__(self, *, lookup_min: int, lookup_max: int) -> None:
        self._min, self._max = lookup_min, lookup_max
        self._newest: dict[tuple[int, ...], int] = {}  # by lookup_min tokens: the place after them
        self._earlier = array("q")  # for each such place, that of the same tokens before it
        self._num_indexed = 0

    def draft(self, token_ids: Sequence[int], max_drafts: int) -> tuple[int, ...]:
        """What should follow `token_ids`, which have only grown since the last call.

        Copied from behind the longest match of their last tokens, the latest of equally long ones.
        Empty if no `lookup_min` tokens match.
        """
        self._index(token_ids)
        source = self._find(token_ids)
        if source == 0:
            return ()
        drafts: list[int] = []
        for place in range(source, source + max_drafts):
            behind = place - len(token_ids)
            drafts.append(token_ids[place] if behind < 0 else drafts[behind])
        return tuple(drafts)

    def _index(self, token_ids: Sequence[int]) -> None:
        """Every run of `lookup_min` tokens, the last one included."""
        for end in range(self._num_indexed + 1, len(token_ids) + 1):
            key = tuple(token_ids[max(0, end - self._min) : end])
            self._earlier.append(self._newest.get(key, 0))
            self._newest[key] = end
        self._num_indexed = len(token_ids)

    def _find(self, token_ids: Sequence[int]) -> int:
        """The place after the best match; 0 if there is none."""
        best, best_length = 0, self._min - 1
        candidate = self._earlier[-1]
        for _ in range(_MAX_CANDIDATES):
            if candidate < self._min:
                break
            length = self._match_length(token_ids, candidate)
            if length > best_length:
                best, best_length = candidate, length
            if length == self._max:
                break
            candidate = self._earlier[candidate - 1]
        return best

    def _match_length(self, token_ids: Sequence[int], end: int) -> int:
        """How many tokens before `end` equal the last ones, up to `lookup_max`."""
        length = self._min
        while (
            length < min(self._max, end) and token_ids[end - 1 - length] == token_ids[-1 - length]
        ):
            length += 1
        return length
