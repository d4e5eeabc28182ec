"""Words and phrases of one's own that must not appear."""

from __future__ import annotations

from collections.abc import Sequence

import blake3

from novacron.guardians.folding import fold, lower
from novacron.guardians.patterns import not_before, seq
from novacron.guardians.patterns import words as any_of
from novacron.guardians.scanning import Entity


def word_entities(words: Sequence[str]) -> tuple[Entity, ...]:
    """Whole words, in any case; gaps of a phrase may be line ends or dashes."""
    lowered = (lower(fold(word)) for word in words)
    pattern = seq(any_of(*lowered, after="A-Za-z0-9"), not_before("A-Za-z0-9"))
    return (Entity("WORD", pattern, ignore_case=True),)


def words_version(words: Sequence[str]) -> str:
    return blake3.blake3("\0".join(sorted(words)).encode()).hexdigest(8)
