"""Which tokens of a step each of several ranks computes, where all of them have the whole model.

A long part of a request is cut into twice as many pieces as there are ranks, and each rank gets
two: one from the front and one as far from the end. What a token costs grows with its position, for
it attends to all before it; so every rank gets as much of that as any other. Short parts, decodes
among them, go as they are to whoever has least. Where ranks share no memory, pieces begin and end
with blocks, so that each block that a step writes to is written by one rank. Pure.

Shapes: T tokens of the step, R rows (parts of requests), B blocks of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from novacron.runner.step_arrays import StepArrays


class Piece(NamedTuple):
    """Tokens [first_token, first_token + num_tokens) of the step, of its row `row`; in the request
    they are those from `start` on."""

    row: int
    first_token: int
    start: int
    num_tokens: int


def share_rows(
    rows_R3: NDArray[np.int64], num_ranks: int, block_size: int = 1
) -> list[list[Piece]]:
    """The pieces of each rank, which together are all tokens of the step, each once. A long part is
    cut between blocks of `block_size` only."""
    shares: list[list[Piece]] = [[] for _ in range(num_ranks)]
    sizes = [0] * num_ranks
    short: list[Piece] = []
    for row, (first_token, start, num_tokens) in enumerate(rows_R3.tolist()):
        if num_tokens < 2 * num_ranks:
            short.append(Piece(row, first_token, start, num_tokens))
            continue
        cuts = [
            _between_blocks(start, index * num_tokens // (2 * num_ranks), num_tokens, block_size)
            for index in range(2 * num_ranks + 1)
        ]
        for index in range(2 * num_ranks):
            begin, end = cuts[index], cuts[index + 1]
            if begin == end:
                continue
            rank = min(index, 2 * num_ranks - 1 - index)
            shares[rank].append(Piece(row, first_token + begin, start + begin, end - begin))
            sizes[rank] += end - begin
    for piece in short:
        rank = sizes.index(min(sizes))
        shares[rank].append(piece)
        sizes[rank] += piece.num_tokens
    return shares


def _between_blocks(start: int, cut: int, num_tokens: int, block_size: int) -> int:
    """The cut nearest to `cut`, in a part of so many tokens from position `start` on, that is one
    of its ends or stands before a block."""
    if cut in (0, num_tokens):
        return cut
    nearest = (start + cut + block_size // 2) // block_size * block_size
    return min(max(nearest - start, 0), num_tokens)


def blocks_written(
    tables_RB: NDArray[np.int64], pieces: Sequence[Piece], block_size: int
) -> NDArray[np.int64]:
    """The blocks that keys and values of these pieces, one at least, go to."""
    return np.concatenate(
        [
            tables_RB[p.row, p.start // block_size : -(-(p.start + p.num_tokens) // block_size)]
            for p in pieces
        ]
    )


def take_share(step: StepArrays, pieces: Sequence[Piece], block_size: int) -> StepArrays:
    """The arrays of these pieces, as a step of their own."""
    counts = [piece.num_tokens for piece in pieces]
    firsts = np.cumsum([0, *counts])
    tokens = int(firsts[-1])
    rows_R3 = [
        (first, piece.start, piece.num_tokens)
        for first, piece in zip(firsts[:-1].tolist(), pieces, strict=True)
    ]
    own = StepArrays(
        token_ids_T=np.concatenate(
            [step.token_ids_T[p.first_token : p.first_token + p.num_tokens] for p in pieces]
        ),
        positions_T=np.empty(tokens, np.int64),
        slots_T=np.empty(tokens, np.int64),
        lengths_R=np.empty(len(pieces), np.int64),
        rows_R3=np.array(rows_R3, np.int64),
        block_tables_RB=step.block_tables_RB[[piece.row for piece in pieces]],
    )
    own.fill_in_places(block_size)
    return own
