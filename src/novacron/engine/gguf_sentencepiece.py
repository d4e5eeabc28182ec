"""The SentencePiece tokenizer of a GGUF file (the kind "llama") as a tokenizer.json. No torch.

Its vocabulary has a score for each piece and no merges: of all neighbours whose join is a piece,
those are joined first whose join has the highest score. In order of scores, the ways in which a
piece can be made of two others are therefore the merges that BPE wants. What no piece stands for
becomes a token for each byte.

Source: the algorithm of SentencePiece's BPE models (Kudo and Richardson 2018, 1808.06226).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

_SPACE = "\u2581"  # stands for a space, so that a piece may hold one


def sentencepiece_json(
    vocabulary: Mapping[str, int],
    scores: Mapping[str, float],
    *,
    unknown: str | None,
    adds_space: bool,
) -> dict[str, Any]:
    """Normalizer, pre-tokenizer, decoder and model. `scores` are those of the pieces of text, which
    tokens with another meaning are not; `adds_space`: a text begins with one, which decoding takes
    away again."""
    return {
        "normalizer": _normalizer(adds_space),
        "pre_tokenizer": None,
        "decoder": _decoder(adds_space),
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": dict(vocabulary),
            "merges": merges_of(scores),
        },
    }


def merges_of(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """First those that make the piece of the highest score."""
    pieces = sorted(scores, key=lambda piece: (-scores[piece], piece))
    return [pair for piece in pieces for pair in _pairs(piece, scores)]


def _pairs(piece: str, pieces: Collection[str]) -> Iterator[tuple[str, str]]:
    for end in range(1, len(piece)):
        first, second = piece[:end], piece[end:]
        if first in pieces and second in pieces:
            yield first, second


def _normalizer(adds_space: bool) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if not adds_space:
        return replace
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replace]}


def _decoder(adds_space: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if adds_space:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
