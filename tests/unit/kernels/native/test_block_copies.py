"""Copies and their XXH3 checksums, against the xxhash package."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from novacron.kernels.native.block_copies import NativeCopies
from novacron.kernels.native.library import NativeContext, NativeUnavailable, native_levels
from novacron.kv_tiers.block_copies import PlainCopies
from novacron.kv_tiers.tier import Bytes, Rows


def _levels() -> tuple[str, ...]:
    try:
        return native_levels()
    except NativeUnavailable:
        return ()


def draw(seed: int, *shape: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("level", _levels())
@given(
    num_bytes=st.integers(1, 300)
    | st.integers(900, 1100)
    | st.integers(15_000, 36_000)
    | st.sampled_from([1024 * n + m for n in (1, 2, 3, 16, 96) for m in (-64, -1, 0, 1, 64)]),
    head_bytes=st.sampled_from([0, 1, 48, 1024]),
    count=st.integers(1, 3),
    read_soon=st.booleans(),
    aligned_to=st.sampled_from([1, 16, 64]),
    seed=st.integers(0, 99),
)
def test_checksums_are_those_of_xxh3(
    level: str,
    num_bytes: int,
    head_bytes: int,
    count: int,
    read_soon: bool,
    aligned_to: int,
    seed: int,
) -> None:
    blocks, heads = draw(seed, count, num_bytes), draw(seed + 1, count, head_bytes)
    row_bytes = num_bytes + -num_bytes % 64 + 64
    memory = np.zeros(count * row_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64 + aligned_to % 64
    rows = memory[start : start + count * row_bytes].reshape(count, row_bytes)
    turned = Rows(rows[:, :num_bytes], np.arange(count)[::-1])
    sums = NativeCopies(NativeContext(1, level)).copy_and_sum(
        Rows.first(blocks, count), turned, heads, read_soon=read_soon
    )
    assert (rows[::-1, :num_bytes] == blocks).all()
    assert not rows[:, num_bytes:].any(), "written beyond the end"
    for head, block, found in zip(heads, blocks, sums, strict=True):
        message = head.tobytes().ljust(1024, b"\0") + block.tobytes()
        assert found.tobytes() == xxhash.xxh3_128(message).digest()


@pytest.mark.parametrize("level", _levels())
def test_what_lies_in_place_is_summed_and_nothing_else_is_touched(level: str) -> None:
    rows = draw(1, 8, 5000)
    before, heads = rows.copy(), draw(2, 3, 48)
    copies = NativeCopies(NativeContext(1, level))
    picked = Rows(rows[:, 100:], np.array([5, 0, 2]))
    assert (
        copies.copy_and_sum(picked, picked, heads)
        == PlainCopies().copy_and_sum(picked, picked, heads)
    ).all()
    assert (rows == before).all()
    copies.copy([rows[0], rows[1]], [rows[6], rows[7]])
    assert (rows[6:] == before[:2]).all()
    assert (rows[:6] == before[:6]).all()
    copies.copy([], [])
