from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.executor.forced_passes import Piece, lay_out, lay_out_after


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


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), max_size=5), st.integers(1, 16))
def test_with_prefixes_a_pass_ends_where_each_does(
    documents: list[tuple[int, float]], max_tokens: int
) -> None:
    lengths = [length for length, _ in documents]
    prefixes = [int(length * share) for length, share in documents]
    passes = list(lay_out_after(lengths, prefixes, max_tokens=max_tokens))
    done = [0] * len(lengths)
    ends: list[set[int]] = [set() for _ in lengths]
    for [piece] in passes:
        assert piece.start == done[piece.document]
        assert 0 < piece.num_tokens <= max_tokens
        done[piece.document] += piece.num_tokens
        ends[piece.document].add(done[piece.document])
    assert done == lengths
    assert all(
        prefix in {0} | of_document for prefix, of_document in zip(prefixes, ends, strict=True)
    )
