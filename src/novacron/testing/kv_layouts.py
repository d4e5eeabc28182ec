"""Layouts of blocks to try codecs with, and blocks whose content follows from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from novacron.kv_tiers.codecs.floats import Floats, to_bfloat16
from novacron.kv_tiers.codecs.layout import BlockLayout, FloatName, Role, Run, layout_of
from novacron.kv_tiers.tier import Bytes


def make_layout(
    dtype: FloatName = "float32",
    *,
    num_layers: int = 3,
    num_heads: int = 2,
    num_tokens: int = 16,
    head_dim: int = 64,
    key_cell: int | None = None,
) -> BlockLayout:
    """`key_cell`: dimensions of a key that lie together; None: all of them."""
    parts: list[Run] = []
    start = 0
    roles: tuple[Role, ...] = ("key", "value")
    for _ in range(num_layers):
        for role in roles:
            cell = key_cell or head_dim if role == "key" else head_dim
            part = Run(role, dtype, start, 0, 1, num_heads, num_tokens, head_dim, cell)
            parts.append(part)
            start += part.part_bytes
    return layout_of(parts)


def as_elements(numbers: Floats, dtype: FloatName) -> NDArray[Any]:
    """Numbers as a cache of this type holds them."""
    if dtype == "bfloat16":
        return to_bfloat16(numbers)
    return numbers.astype(np.float16) if dtype == "float16" else numbers


def make_block(layout: BlockLayout, seed: int, *, outliers: float = 1.0) -> Bytes:
    """Normal numbers; every eighth dimension of keys is so many times larger."""
    rng = np.random.default_rng(seed)
    block = np.zeros(layout.block_bytes, np.uint8)
    for run in layout.runs:
        shape = (run.num_parts, run.num_heads, run.num_tokens, run.head_dim)
        numbers = rng.standard_normal(shape, np.float32)
        if run.role == "key":
            numbers[..., ::8] *= outliers
        put_numbers(run, block, numbers)
    return block


def put_numbers(run: Run, block: Bytes, numbers: Floats) -> None:
    """Write a run's numbers, [parts, heads, tokens, dims], to where they lie."""
    cells = numbers.reshape(*numbers.shape[:-1], -1, run.cell)
    run.view(block)[...] = as_elements(np.moveaxis(cells, 3, 2), run.dtype)
