"""Rows that ranks share out: each token once, and work as even as can be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from novacron.runner.row_shares import Piece, blocks_written, share_rows, take_share
from novacron.runner.step_arrays import StepArrays

BLOCK_SIZE = 8
PARTS = st.lists(
    st.tuples(st.integers(0, 50), st.one_of(st.just(1), st.integers(1, 60))), min_size=1, max_size=6
)


def rows_of(parts: list[tuple[int, int]]) -> NDArray[np.int64]:
    """Of (start, number of tokens) each, one after the other in the step."""
    firsts = np.cumsum([0, *(count for _, count in parts)])[:-1]
    return np.array([(first, *part) for first, part in zip(firsts, parts, strict=True)], np.int64)


def step_of(parts: list[tuple[int, int]]) -> StepArrays:
    rows_R3 = rows_of(parts)
    num_tokens, num_blocks = sum(count for _, count in parts), 14
    step = StepArrays(
        token_ids_T=np.arange(num_tokens) + 1000,
        positions_T=np.zeros(num_tokens, np.int64),
        slots_T=np.zeros(num_tokens, np.int64),
        lengths_R=np.zeros(len(parts), np.int64),
        rows_R3=rows_R3,
        block_tables_RB=np.random.default_rng(0)
        .permutation(len(parts) * num_blocks)
        .reshape(len(parts), num_blocks),
    )
    step.fill_in_places(BLOCK_SIZE)
    return step


def tokens_of(pieces: list[Piece]) -> list[int]:
    return [
        token
        for piece in pieces
        for token in range(piece.first_token, piece.first_token + piece.num_tokens)
    ]


@given(PARTS, st.integers(1, 8))
def test_every_token_is_somebodys_and_nobody_has_many_more(
    parts: list[tuple[int, int]], num_ranks: int
) -> None:
    shares = share_rows(rows_of(parts), num_ranks)
    assert sorted(token for share in shares for token in tokens_of(share)) == list(
        range(sum(count for _, count in parts))
    )
    sizes = [len(tokens_of(share)) for share in shares]
    # of a long part, two roundings; of short ones, the last
    assert max(sizes) - min(sizes) <= 2 * len(parts) + 2 * num_ranks
    assert all(len(share) <= 2 * len(parts) for share in shares)


@given(PARTS, st.integers(1, 4))
def test_a_share_has_its_tokens_where_the_step_has_them(
    parts: list[tuple[int, int]], num_ranks: int
) -> None:
    step = step_of(parts)
    for pieces in share_rows(step.rows_R3, num_ranks):
        if not pieces:
            continue
        own, places = take_share(step, pieces, BLOCK_SIZE), tokens_of(pieces)
        for name in ("token_ids_T", "positions_T", "slots_T"):
            assert (getattr(own, name) == getattr(step, name)[places]).all(), name
        assert (own.lengths_R == own.rows_R3[:, 1:].sum(1)).all()


@given(PARTS, st.integers(1, 4))
def test_no_block_is_written_by_two_ranks_that_share_no_memory(
    parts: list[tuple[int, int]], num_ranks: int
) -> None:
    step = step_of(parts)
    shares = share_rows(step.rows_R3, num_ranks, BLOCK_SIZE)
    assert sorted(token for share in shares for token in tokens_of(share)) == list(
        range(len(step.token_ids_T))
    )
    written = [
        block
        for share in shares
        if share
        for block in blocks_written(step.block_tables_RB, share, BLOCK_SIZE).tolist()
    ]
    assert len(set(written)) == len(written)
    assert set(written) == set((step.slots_T // BLOCK_SIZE).tolist())


def test_cuts_between_blocks_are_the_nearest_ones() -> None:
    [one, other] = share_rows(rows_of([(3, 128)]), 2, BLOCK_SIZE)
    assert [(piece.start, piece.num_tokens) for piece in one] == [(3, 29), (96, 35)]
    assert [(piece.start, piece.num_tokens) for piece in other] == [(32, 32), (64, 32)]


def test_what_a_long_prompt_attends_to_is_shared_out_evenly() -> None:
    shares = share_rows(rows_of([(0, 4096)]), 4)
    seen = [
        sum(position + 1 for piece in share for position in range(piece.start, piece.start + 512))
        for share in shares
    ]
    assert max(seen) - min(seen) <= 4096, "of two million"


def test_decodes_go_to_whoever_has_least() -> None:
    shares = share_rows(rows_of([(5, 1), (9, 1), (0, 101), (3, 1)]), 2)
    assert sorted(len(tokens_of(share)) for share in shares) == [52, 52]
