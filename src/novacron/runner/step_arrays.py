"""StepArrays: what the tensors of one step are made of.

Shapes: T tokens of the step, R rows (scheduled requests), B blocks of the longest row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class StepArrays(NamedTuple):
    """What the tensors of a step are made of, all int64."""

    token_ids_T: NDArray[np.int64]
    positions_T: NDArray[np.int64]
    slots_T: NDArray[np.int64]
    lengths_R: NDArray[np.int64]
    rows_R3: NDArray[np.int64]
    block_tables_RB: NDArray[np.int64]

    @staticmethod
    def shapes(
        *, max_num_seqs: int, max_num_tokens: int, max_model_len: int, block_size: int
    ) -> dict[str, tuple[int, ...]]:
        """Of those of the largest step, by name."""
        return {
            "token_ids_T": (max_num_tokens,),
            "positions_T": (max_num_tokens,),
            "slots_T": (max_num_tokens,),
            "lengths_R": (max_num_seqs,),
            "rows_R3": (max_num_seqs, 3),
            "block_tables_RB": (max_num_seqs, -(-max_model_len // block_size)),
        }

    def first(self, num_tokens: int, num_rows: int, num_blocks: int) -> StepArrays:
        return StepArrays(
            self.token_ids_T[:num_tokens],
            self.positions_T[:num_tokens],
            self.slots_T[:num_tokens],
            self.lengths_R[:num_rows],
            self.rows_R3[:num_rows],
            self.block_tables_RB[:num_rows, :num_blocks],
        )

    def copy_from(self, larger: StepArrays) -> None:
        """Become the beginnings of others."""
        for own, other in zip(self, larger, strict=True):
            own[...] = other[tuple(map(slice, own.shape))]

    def fill_in_places(self, block_size: int) -> None:
        """Fill in what follows from the rows and their block tables."""
        firsts_R, starts_R, counts_R = self.rows_R3.T
        np.add(starts_R, counts_R, out=self.lengths_R)
        if len(self.positions_T) == len(counts_R):  # a token each
            row_of_T, self.positions_T[:] = np.arange(len(counts_R)), starts_R
        else:
            row_of_T = np.repeat(np.arange(len(counts_R)), counts_R)
            np.add(np.arange(len(row_of_T)), (starts_R - firsts_R)[row_of_T], out=self.positions_T)
        blocks_T, offsets_T = np.divmod(self.positions_T, block_size)
        np.multiply(self.block_tables_RB[row_of_T, blocks_T], block_size, out=self.slots_T)
        np.add(self.slots_T, offsets_T, out=self.slots_T)
