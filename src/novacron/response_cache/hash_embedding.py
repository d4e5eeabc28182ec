"""Vectors of texts without a model: hashed words and letters, near for texts that share words,
whatever they mean. (The hashing trick, Weinberger et al. 2009, over words and character trigrams.)
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

_DIMENSIONS = 256
_WORD = re.compile(r"\w+")
_WEIGHT_OF_WORD = 2.0


def hash_embedding(text: str) -> Sequence[float]:
    vector = [0.0] * _DIMENSIONS
    for word in _WORD.findall(text.lower()):
        _add(vector, word, _WEIGHT_OF_WORD)
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            _add(vector, padded[start : start + 3], 1.0)
    return vector


def _add(vector: list[float], feature: str, weight: float) -> None:
    digest = zlib.crc32(feature.encode())
    vector[digest % _DIMENSIONS] += weight if digest & 0x80000000 else -weight
