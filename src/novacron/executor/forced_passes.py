"""How documents are laid out over passes through a model. Pure; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Positions [start, start + num_tokens) of one document, in one pass."""

    document: int
    start: int
    num_tokens: int


def lay_out(
    lengths: Sequence[int], *, max_tokens: int, max_documents: int
) -> Iterator[tuple[Piece, ...]]:
    """Passes of at most `max_tokens` tokens of at most `max_documents` documents, in order.

    A document that does not end in a pass goes on at the beginning of the next one, so no more than
    one is unfinished between passes.
    """
    pieces: list[Piece] = []
    free = max_tokens
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            count = min(free, length - start)
            pieces.append(Piece(document, start, count))
            start, free = start + count, free - count
            if free == 0 or len(pieces) == max_documents:
                yield tuple(pieces)
                pieces, free = [], max_tokens
    if pieces:
        yield tuple(pieces)


def lay_out_after(
    lengths: Sequence[int], prefixes: Sequence[int], *, max_tokens: int
) -> Iterator[tuple[Piece, ...]]:
    """Passes of one document at a time, one of which ends where its prefix does, so that something
    can be done to what is cached of that before the rest sees it."""
    for document, (length, prefix) in enumerate(zip(lengths, prefixes, strict=True)):
        start = 0
        while start < length:
            end = min(start + max_tokens, prefix if start < prefix else length)
            yield (Piece(document, start, end - start),)
            start = end
