"""What codecs lose is what torch's own rounding loses, wherever a kernel puts the numbers.

Shapes: N parts, H heads, S tokens, D dimensions.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.config.kv_compression import KVLevel
from novacron.kv_tiers.codecs.codec import make_codec
from novacron.kv_tiers.codecs.floats import widen
from novacron.kv_tiers.codecs.layout import BlockLayout, FloatName, Run, layout_of
from novacron.kv_tiers.tier import Bytes
from novacron.testing.kv_layouts import make_block, make_layout, put_numbers

LEVELS: tuple[KVLevel, ...] = ("int8", "fp8", "int8/int4", "int4")
LIMITS = {"int8": 127, "int4": 7}


def numbers_of(run: Run, block: Bytes) -> torch.Tensor:
    """[N, H, S, D]"""
    view = np.moveaxis(widen(run.view(block)), 2, 3)
    return torch.from_numpy(view.reshape(*view.shape[:3], -1).copy())


def through(level: KVLevel, layout: BlockLayout, block: Bytes) -> Bytes:
    codec = make_codec(level, layout)
    code, left = np.empty(codec.encoded_bytes, np.uint8), np.zeros_like(block)
    codec.encode(block, code)
    codec.decode(code, left)
    return left


def rounded(x: torch.Tensor, name: str, dim: int) -> torch.Tensor:
    """By torch alone, with one scale along a dimension."""
    if name == "fp8":
        scale = (x.abs().amax(dim, keepdim=True) / 448).bfloat16().float()
        return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    scale = (x.abs().amax(dim, keepdim=True) / LIMITS[name]).bfloat16().float()
    return (
        torch.fake_quantize_per_channel_affine(
            x.movedim(dim, -1).reshape(-1, x.shape[dim]),
            scale.movedim(dim, -1).reshape(-1),
            torch.zeros(scale.numel(), dtype=torch.int32),
            0,
            -LIMITS[name],
            LIMITS[name],
        )
        .reshape(x.movedim(dim, -1).shape)
        .movedim(-1, dim)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("key_cell", [None, 1, 2])
def test_keys_are_rounded_by_channel_and_values_by_token(
    level: KVLevel, key_cell: int | None
) -> None:
    layout = make_layout(key_cell=key_cell)
    block = make_block(layout, 1, outliers=20)
    left = through(level, layout, block)
    keys, _, values = level.partition("/")
    of_role = {"key": keys, "value": values or keys}
    for run in layout.runs:
        x, y = numbers_of(run, block), numbers_of(run, left)
        name = of_role[run.role]
        if run.role == "key":
            expected = rounded(x, name, 2)
        elif name == "int4":
            grouped = x.unflatten(-1, (-1, 32))
            expected = rounded(grouped, name, 4).flatten(-2)
        else:
            expected = rounded(x, name, 3)
        # x / scale and x * (1 / scale) may fall to both sides of a half
        assert (y != expected).float().mean() < 1e-3
        step = 0.1 if name == "fp8" else 1 / LIMITS[name]
        assert (y - expected).abs().max() <= step * x.abs().max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("level", LEVELS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_where_numbers_lie_does_not_matter(level: KVLevel, dtype: FloatName, seed: int) -> None:
    here, there = (
        make_layout(dtype, num_layers=2, num_tokens=8, head_dim=32, key_cell=cell)
        for cell in (None, 2)
    )
    one, other = make_block(here, seed), make_block(there, seed)
    first, second = through(level, here, one), through(level, there, other)
    for run, run_there in zip(here.runs, there.runs, strict=True):
        assert (numbers_of(run, first) == numbers_of(run_there, second)).all()


@pytest.mark.parametrize("level", LEVELS)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(-40, 40))
@settings(max_examples=25)
def test_the_loss_is_that_of_what_comes_back(level: KVLevel, seed: int, size: int) -> None:
    layout = make_layout(num_layers=2, num_tokens=8, head_dim=32)
    block = make_block(layout, seed)
    for run in layout.runs:
        put_numbers(run, block, (numbers_of(run, block) * 2.0**size).numpy())
    codec = make_codec(level, layout)
    loss = codec.encode(block, np.empty(codec.encoded_bytes, np.uint8))
    left = through(level, layout, block)
    found = {}
    for run in layout.runs:
        x, y = numbers_of(run, block).double(), numbers_of(run, left).double()
        errors = (x - y).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        found[run.role] = float(errors.max())
    assert loss.keys == pytest.approx(found["key"], rel=1e-3)
    assert loss.values == pytest.approx(found["value"], rel=1e-3)
    assert loss.largest == max(loss.keys, loss.values)


@pytest.mark.parametrize("level", LEVELS)
def test_a_block_that_went_through_once_loses_no_more(level: KVLevel) -> None:
    """So blocks that are stored, loaded and stored again do not fade."""
    layout = make_layout()
    once = through(level, layout, make_block(layout, 3))
    assert (through(level, layout, once) == once).all()


def test_channels_of_keys_do_not_disturb_each_other() -> None:
    layout = make_layout()
    for level in LEVELS:
        codec = make_codec(level, layout)
        code = np.empty(codec.encoded_bytes, np.uint8)
        plain = codec.encode(make_block(layout, 4), code).keys
        outliers = codec.encode(make_block(layout, 4, outliers=1000), code).keys
        assert outliers < 1.5 * plain


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_an_infinite_loss(level: KVLevel, bad: float) -> None:
    layout = make_layout()
    codec = make_codec(level, layout)
    for run in layout.runs:
        block = make_block(layout, 5)
        run.view(block)[-1, -1, -1, -1, -1] = bad
        assert codec.encode(block, np.empty(codec.encoded_bytes, np.uint8)).largest == np.inf


@pytest.mark.parametrize("level", LEVELS)
def test_zeros_and_next_to_nothing_become_zeros(level: KVLevel) -> None:
    layout = make_layout()
    block = np.zeros(layout.block_bytes, np.uint8)
    assert (through(level, layout, block) == 0).all()
    for run in layout.runs:
        run.view(block)[...] = 2.0**-120
    assert not through(level, layout, block).view(np.float32).any()


def test_bytes_of_the_levels() -> None:
    layout = make_layout("bfloat16", num_layers=1, num_heads=1)
    numbers = 16 * 64  # of keys, and of values
    sizes = {level: make_codec(level, layout).encoded_bytes for level in LEVELS}
    assert sizes == {
        "int8": 2 * numbers + 2 * 64 + 2 * 16,
        "fp8": 2 * numbers + 2 * 64 + 2 * 16,
        "int8/int4": numbers + numbers // 2 + 2 * 64 + 2 * 16 * 2,
        "int4": numbers + 2 * 64 + 2 * 16 * 2,
    }
    raw = make_codec("raw", layout)
    assert raw.encoded_bytes == layout.block_bytes == 4 * numbers
    block = make_block(layout, 6)
    assert (through("raw", layout, block) == block).all()


def test_layers_that_differ_are_runs_of_their_own() -> None:
    parts: list[Run] = []
    start = 0
    for dtype in ("float32", "bfloat16", "bfloat16", "float32"):
        for role in ("key", "value"):
            part = Run(role, dtype, start, 0, 1, 2, 8, 32, 32)  # type: ignore[arg-type]
            parts.append(part)
            start += part.part_bytes
    layout = layout_of(parts)
    assert sorted((run.dtype, run.num_parts) for run in layout.runs) == [
        ("bfloat16", 2),
        ("bfloat16", 2),
        ("float32", 2),
        ("float32", 2),
    ]
    block = make_block(layout, 7)
    left = through("int8", layout, block)
    for run in layout.runs:
        x, y = numbers_of(run, block), numbers_of(run, left)
        assert 0 < (x - y).abs().max() < 0.05
