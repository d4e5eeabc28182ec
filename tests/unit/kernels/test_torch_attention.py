from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.kernels.kv_format import KVFormat, LayerFormat
from novacron.kernels.metadata import AttentionMetadata, KVLayer, Row
from novacron.kernels.torch_attention import plan_attention

BLOCK = 4
KV_HEADS, GROUP, HEAD_DIM = 2, 3, 8
SCALE = 0.3


class Sequence:
    """Random queries, keys and values of one request, of which `start` tokens are cached."""

    def __init__(self, start: int, num_tokens: int, block_ids: list[int]) -> None:
        self.start, self.num_tokens, self.block_ids = start, num_tokens, block_ids
        length = start + num_tokens
        self.q = torch.randn(num_tokens, KV_HEADS * GROUP, HEAD_DIM)
        self.k = torch.randn(length, KV_HEADS, HEAD_DIM)
        self.v = torch.randn(length, KV_HEADS, HEAD_DIM)

    def slots(self) -> list[int]:
        length = self.start + self.num_tokens
        return [self.block_ids[p // BLOCK] * BLOCK + p % BLOCK for p in range(length)]

    def expected(self, window: int | None, softcap: float | None) -> Tensor:
        """Attention written out, one token and head at a time."""
        out = torch.zeros(self.num_tokens, KV_HEADS * GROUP, HEAD_DIM)
        for token in range(self.num_tokens):
            position = self.start + token
            first = 0 if window is None else max(0, position + 1 - window)
            for head in range(KV_HEADS * GROUP):
                keys = self.k[first : position + 1, head // GROUP]
                scores = keys @ self.q[token, head] * SCALE
                if softcap is not None:
                    scores = torch.tanh(scores / softcap) * softcap
                values = self.v[first : position + 1, head // GROUP]
                out[token, head] = torch.softmax(scores, 0) @ values
        return out.flatten(1)


def make_sequences(sizes: list[tuple[int, int]]) -> tuple[list[Sequence], int]:
    """One sequence per (cached tokens, tokens of the step), blocks dealt out at random."""
    counts = [math.ceil((start + num) / BLOCK) for start, num in sizes]
    shuffled = torch.randperm(sum(counts) + 3).tolist()
    sequences = []
    for (start, num), count in zip(sizes, counts, strict=True):
        blocks, shuffled = shuffled[:count], shuffled[count:]
        sequences.append(Sequence(start, num, blocks))
    return sequences, sum(counts) + 3


def attend(
    sequences: list[Sequence], num_blocks: int, window: int | None, softcap: float | None
) -> Tensor:
    """The step that computes the new tokens of all sequences, foreign blocks full of NaN."""
    kind = KVFormat("float32")
    shape = (KV_HEADS, num_blocks, kind.block_bytes(BLOCK, HEAD_DIM))
    blocks = (torch.full(shape, 0xFF, dtype=torch.uint8) for _ in "kv")
    cache = KVLayer(*blocks, LayerFormat(kind, kind), BLOCK)
    rows, slots, first = [], [], 0
    width = max(len(sequence.block_ids) for sequence in sequences)
    tables = []
    for sequence in sequences:
        rows.append(Row(first, sequence.start, sequence.num_tokens))
        first += sequence.num_tokens
        own = sequence.slots()
        slots += own[sequence.start :]
        for stored, values in ((cache.key, sequence.k), (cache.value, sequence.v)):
            stored[:, sequence.block_ids] = 0
            flat = stored.view(torch.float32).view(KV_HEADS, -1, HEAD_DIM)
            flat[:, own[: sequence.start]] = values[: sequence.start].transpose(0, 1)
        padding = [sequence.block_ids[0]] * (width - len(sequence.block_ids))
        tables.append(sequence.block_ids + padding)
    step = AttentionMetadata(
        rows=tuple(rows),
        num_decodes=sum(row.num_tokens == 1 for row in rows),
        block_size=BLOCK,
        block_tables_RB=torch.tensor(tables),
        lengths_R=torch.tensor([row.length for row in rows]),
        slots_T=torch.tensor(slots),
        rows_R3=torch.tensor(rows),
    )
    return plan_attention(step, window).attend(
        torch.cat([sequence.q for sequence in sequences]),
        torch.cat([sequence.k[sequence.start :] for sequence in sequences]),
        torch.cat([sequence.v[sequence.start :] for sequence in sequences]),
        cache,
        SCALE,
        softcap,
    )


@settings(deadline=None, max_examples=40)
@given(
    decodes=st.lists(st.integers(0, 40), max_size=5),
    chunks=st.lists(st.tuples(st.integers(0, 20), st.integers(2, 20)), max_size=3),
    window=st.sampled_from([None, 1, 3, 7, 16]),
    softcap=st.sampled_from([None, 0.5]),
)
def test_any_mix_equals_attention_written_out(
    decodes: list[int],
    chunks: list[tuple[int, int]],
    window: int | None,
    softcap: float | None,
) -> None:
    sizes = [(start, 1) for start in sorted(decodes, reverse=True)] + chunks
    if not sizes:
        return
    torch.manual_seed(0)
    sequences, num_blocks = make_sequences(sizes)
    found = attend(sequences, num_blocks, window, softcap)
    expected = torch.cat([sequence.expected(window, softcap) for sequence in sequences])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 30])
def test_decodes_of_very_different_length_form_several_groups(window: int | None) -> None:
    torch.manual_seed(1)
    lengths = [400, 390, 380, 20, 19, 5]
    sequences, num_blocks = make_sequences([(length, 1) for length in lengths])
    rows = tuple(Row(index, length, 1) for index, length in enumerate(lengths))
    step = AttentionMetadata(
        rows, len(rows), BLOCK, torch.zeros(6, 101, dtype=torch.int64), torch.tensor(lengths) + 1,
        torch.zeros(6, dtype=torch.int64), torch.tensor(rows),
    )  # fmt: skip
    assert len(plan_attention(step, window).groups) == (2 if window is None else 1)
    found = attend(sequences, num_blocks, window, None)
    expected = torch.cat([sequence.expected(window, None) for sequence in sequences])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_many_long_decodes_form_groups_that_fit_the_cache() -> None:
    lengths = [1023] * 5
    rows = tuple(Row(index, length, 1) for index, length in enumerate(lengths))
    step = AttentionMetadata(
        rows,
        len(lengths),
        BLOCK,
        torch.zeros(5, 256, dtype=torch.int64),
        torch.tensor(lengths) + 1,
        torch.zeros(5, dtype=torch.int64),
        torch.tensor(rows),
    )
    groups = plan_attention(step, None).groups
    assert [(group.first, group.last) for group in groups] == [(0, 2), (2, 4), (4, 5)]
    assert len(plan_attention(step, 16).groups) == 1


def test_capped_scores_of_a_long_chunk() -> None:
    torch.manual_seed(2)
    sequences, num_blocks = make_sequences([(3, 300)])
    found = attend(sequences, num_blocks, None, 0.7)
    torch.testing.assert_close(found, sequences[0].expected(None, 0.7), atol=1e-5, rtol=1e-4)
