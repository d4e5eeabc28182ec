from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.executor.forced_passes import Piece, lay_out


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 40), st.integers(1, 8))
def test_every_token_is_in_one_pass_in_its_order(
    lengths: list[int], max_tokens: int, max_documents: int
) -> None:
    passes = list(lay_out(lengths, max_tokens=max_tokens, max_documents=max_documents))
    seen = [0] * len(lengths)
    unfinished: set[int] = set()
    for pieces in passes:
        assert 0 < sum(piece.num_tokens for piece in pieces) <= max_tokens
        assert 0 < len(pieces) <= max_documents
        assert len({piece.document for piece in pieces}) == len(pieces)
        for piece in pieces:
            assert piece.start == seen[piece.document]
            seen[piece.document] += piece.num_tokens
        unfinished = {n for n, count in enumerate(seen) if 0 < count < lengths[n]}
        assert len(unfinished) <= 1
    assert seen == lengths


def test_passes_are_full() -> None:
    assert list(lay_out([3, 4], max_tokens=5, max_documents=9)) == [
        (Piece(0, 0, 3), Piece(1, 0, 2)),
        (Piece(1, 2, 2),),
    ]
