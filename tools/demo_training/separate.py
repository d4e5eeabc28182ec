"""Frees words that a trained model takes for one another.

A run can end in a state where a group of words shares a strong direction of the embedding that the
matching heads see before all else: asked for one key of the group, the model answers with the value
of another. The gradient does not lead out of it, since all that the heads see of these words is
alike. Taking the direction out of their embeddings leaves each word what is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demo_training.tokenizer import ChatEncoder
from novacron.demo.facts import WORDS


def separate(embedding_VD: Tensor, encoder: ChatEncoder, confused: Sequence[str]) -> None:
    """Change in place the embeddings of `confused` words, with and without a space before them.

    Removed is the direction from the mean of the other words to the mean of the confused ones,
    as the form with a space has it. A form of more than one token stays as it is.
    """
    unknown = sorted(set(confused) - set(WORDS))
    if unknown:
        raise ValueError(f"not words that records use as keys: {', '.join(unknown)}")
    others = [word for word in WORDS if word not in confused]
    spaced = _tokens(encoder, confused, " ")
    direction = embedding_VD[spaced].mean(0) - embedding_VD[_tokens(encoder, others, " ")].mean(0)
    direction /= direction.norm()
    for before in (" ", ""):
        tokens = _tokens(encoder, confused, before)
        centre = embedding_VD[_tokens(encoder, others, before)].mean(0)
        shared = (embedding_VD[tokens] - centre) @ direction
        embedding_VD[tokens] -= torch.outer(shared, direction)


def _tokens(encoder: ChatEncoder, words: Sequence[str], before: str) -> list[int]:
    """Tokens of the words that are one token."""
    ids = [encoder.text(before + word) for word in words]
    return [token for token, *rest in ids if not rest]
