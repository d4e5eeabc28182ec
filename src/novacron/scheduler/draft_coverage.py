"""DraftCoverage: which tokens have KV of the draft model, in the blocks of both models. Pure.

The draft model keeps its KV under the block tables of the model itself, so a block that is shared,
cached or given up is so for both. What differs is which of a block's tokens it has computed: it
looks at a request only where guesses are wanted, and then has to catch up.
"""

from __future__ import annotations

from collections.abc import Iterable

from novacron.records.step import ScheduledTokens
from novacron.scheduler.guesser import DraftProgress
from novacron.scheduler.request_state import RequestState


class DraftCoverage:
    """Full blocks by number, and for each request how many of its first tokens are covered."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._block_size = block_size
        self._is_covered = bytearray(num_blocks)

    def see_blocks(self, state: RequestState, part: ScheduledTokens) -> None:
        """Take note of the blocks that a part brings: those to be written anew cover nothing.

        To be called for every part of every step, before any other request shares its blocks in a
        later one.
        """
        if not part.new_block_ids:
            return
        block_ids = state.blocks.block_ids
        num_held = len(block_ids) - len(part.new_block_ids)
        if num_held == 0 and state.draft_progress is not None:  # resumed
            state.draft_progress.num_seen = 0
        self.drop(block_ids[max(num_held, part.start // self._block_size) :])

    def drop(self, block_ids: Iterable[int]) -> None:
        """These blocks cover nothing, or nothing any more."""
        for block_id in block_ids:
            self._is_covered[block_id] = False

    def num_seen(self, state: RequestState, progress: DraftProgress) -> int:
        """How many of the request's first tokens are covered, by whomever; never all of them: the
        last one is computed for its logits."""
        block_ids, size = state.blocks.block_ids, self._block_size
        index = progress.num_seen // size
        while index < len(block_ids) and self._is_covered[block_ids[index]]:
            index += 1
        progress.num_seen = max(progress.num_seen, index * size)
        return min(progress.num_seen, len(state.token_ids) - 1)

    def cover(self, state: RequestState, progress: DraftProgress, num_tokens: int) -> None:
        """The draft model has computed the request's first tokens, up to so many."""
        block_ids, size = state.blocks.block_ids, self._block_size
        for index in range(progress.num_seen // size, num_tokens // size):
            self._is_covered[block_ids[index]] = True
        progress.num_seen = num_tokens

    def forget(self, state: RequestState, progress: DraftProgress) -> None:
        """What it has computed of the request is of no use."""
        self.drop(state.blocks.block_ids)
        progress.num_seen = 0
