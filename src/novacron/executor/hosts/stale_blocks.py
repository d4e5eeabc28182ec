"""StaleBlocks: which of rank 0's KV blocks ranks on other hosts do not have, because it computed
steps alone, or a tier filled them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from novacron.runner.step_arrays import StepArrays


class StaleBlocks:
    """Of `num_blocks` blocks, none of which is stale at first."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._is_stale_B = np.zeros(num_blocks, np.bool_)
        self._block_size = block_size

    def see_filled(self, block_ids: Iterable[int]) -> None:
        """Rank 0 alone has got contents for these."""
        self._is_stale_B[list(block_ids)] = True

    def see_step(self, step: StepArrays) -> None:
        """Rank 0 computed it alone."""
        self._is_stale_B[step.slots_T // self._block_size] = True

    def take_read(self, step: StepArrays) -> tuple[int, ...]:
        """All ranks are about to compute a step: what others have to get before. Afterwards they
        have these, and whatever the step writes to."""
        starts_R = step.rows_R3[:, 1]
        read_RB = np.arange(step.block_tables_RB.shape[1]) * self._block_size < starts_R[:, None]
        read = np.unique(step.block_tables_RB[read_RB])
        read = read[self._is_stale_B[read]]
        self._is_stale_B[read] = False
        self._is_stale_B[step.slots_T // self._block_size] = False
        return tuple(read.tolist())
