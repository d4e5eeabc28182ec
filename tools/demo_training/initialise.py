"""Initial weights, with a hand-built circuit that looks things up in the context.

Finding "the value after this key" takes two layers that work together: one writes the tokens just
before into each position, the next looks for a position whose earlier tokens match. Left to
chance this forms late in so short a training. Here the first two layers start with it:

    layer 0, head d-1   attends d tokens back (d = 1, 2, 3) and writes what it finds into subspace d
    layer 1, each head  matches one place of the query with one place of the key, copies the token

Training is free to change all of it. Everything else starts small and random, and layers without
a circuit start as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from demo_training.model import Attention, Block, DemoModel

EMBEDDING_STD: Final = 0.1
FINAL_NORM: Final = 0.1
_NUM_LOOK_BACKS: Final = 3
_LOOK_BACK_GAIN: Final = 1.25
_WRITE_GAIN: Final = 0.3
_MATCH_GAIN: Final = 2.5
_COPY_GAIN: Final = 0.5
_ALIKE: Final = 0.8
_SLOWEST_TURN: Final = 2000.0

# Energy of the look-back heads by rotary frequency, fastest first: sharp near, unique far away.
_LOOK_BACK_ENERGY: Final = (0.30, 0.20, 0.15, 0.10, 0.07, 0.05, 0.04, 0.03, 0.03, 0.03)

# (query, key): how many tokens back the query and the key look for equal tokens. After "amber is"
# the second pair finds "amber: 17", whose value has its key two tokens back.
_MATCHED_PLACES: Final = ((0, 1), (1, 2), (1, 3), (2, 3))


def initialise(model: DemoModel, word_pairs: Sequence[tuple[int, int]]) -> None:
    """Set all weights; deterministic in torch's generator.

    `word_pairs` are tokens for one word without and with a space before it: they start alike, so
    that a word is found and copied from the middle of a sentence to the start of one.
    """
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(weight)
        elif weight.ndim == 2 and "embed" not in name:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    with torch.no_grad():
        _build_lookup(model, word_pairs)


def _orthonormal(rows: int, columns: int) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(columns, rows))[0].T
    return basis


def _build_lookup(model: DemoModel, word_pairs: Sequence[tuple[int, int]]) -> None:
    size, head_dim = model.shape.hidden_size, model.shape.head_dim
    directions = _orthonormal(1 + head_dim, size)
    common, content = directions[:1], directions[1:]
    embedding = torch.randn(model.shape.vocab_size, size) * EMBEDDING_STD
    bare, spaced = torch.tensor(word_pairs).T
    embedding[bare] = _ALIKE * embedding[spaced] + (1 - _ALIKE**2) ** 0.5 * embedding[bare]
    embedding -= embedding @ common.T @ common
    model.embed_tokens.weight.copy_(embedding + common * EMBEDDING_STD * size**0.5)
    model.norm.weight.fill_(FINAL_NORM)
    written = _orthonormal(_NUM_LOOK_BACKS * head_dim, size).chunk(_NUM_LOOK_BACKS)
    look_back, match = model.layers[0], model.layers[1]
    assert isinstance(look_back, Block)
    assert isinstance(match, Block)
    for head, subspace in enumerate(written):
        _build_look_back(model, look_back.self_attn, head, common, content, subspace)
    places = (content, *written)
    for head, (query, key) in enumerate(_MATCHED_PLACES):
        _build_match(model, match.self_attn, head, places[query], places[key])


def _rows(attention: Attention, head: int) -> slice:
    return slice(head * attention.head_dim, (head + 1) * attention.head_dim)


def _turned(model: DemoModel, vector: Tensor, positions: int) -> Tensor:
    """A head vector as the rotary embedding turns it at a position, which may be negative."""
    half = model.shape.head_dim // 2
    cos, sin = model.cos[abs(positions)], model.sin[abs(positions)]
    sin = sin if positions >= 0 else -sin
    other = torch.cat((-vector[half:], vector[:half]))
    return vector * cos + other * sin


def _build_look_back(
    model: DemoModel, attention: Attention, head: int, common: Tensor, content: Tensor, to: Tensor
) -> None:
    """Head that attends `head + 1` tokens back and writes that token's content to a subspace."""
    rows = _rows(attention, head)
    vector = torch.zeros(attention.head_dim)
    vector[: len(_LOOK_BACK_ENERGY)] = torch.tensor(_LOOK_BACK_ENERGY).sqrt()
    query = _turned(model, vector, -(head + 1))
    attention.q_proj.weight[rows] = _LOOK_BACK_GAIN * query[:, None] * common
    attention.k_proj.weight[rows] = _LOOK_BACK_GAIN * vector[:, None] * common
    attention.v_proj.weight[rows] = content
    attention.o_proj.weight[:, rows] = _WRITE_GAIN * to.T


def _build_match(
    model: DemoModel, attention: Attention, head: int, query: Tensor, key: Tensor
) -> None:
    """Head that attends where `key` holds what `query` holds here, and copies the token there.

    Only the slow rotary frequencies take part, so that distance does not matter.
    """
    rows = _rows(attention, head)
    half = model.shape.head_dim // 2
    frequency = model.shape.rope_theta ** -(torch.arange(half) / half)
    slow = (2 * torch.pi / frequency > _SLOWEST_TURN).float().repeat(2)[:, None]
    attention.q_proj.weight[rows] = _MATCH_GAIN * slow * query
    attention.k_proj.weight[rows] = _MATCH_GAIN * slow * key
    copied = _orthonormal(attention.head_dim, model.shape.hidden_size)
    attention.v_proj.weight[rows] = copied
    attention.o_proj.weight[:, rows] = _COPY_GAIN * copied.T
