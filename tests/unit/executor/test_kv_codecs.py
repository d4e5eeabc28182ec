"""Codecs of real caches: the native rounding is numpy's, and keys are where kernels put them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.config.kv_compression import KVLevel
from novacron.config.kv_layers import KVDtype, KVPrecision
from novacron.errors import ConfigError
from novacron.executor.kv_codecs import block_layout, make_block_codec
from novacron.kernels.kv_format import choose_kv_formats
from novacron.kernels.metadata import AttentionMetadata, Row
from novacron.kernels.native.kv_codec import code_kv
from novacron.kernels.native.library import (
    NativeContext,
    NativeUnavailable,
    native_levels,
)
from novacron.kernels.native.table import native_kernels
from novacron.kernels.table import TORCH_KERNELS, Kernels
from novacron.kv_tiers.codecs.codec import make_codec
from novacron.kv_tiers.codecs.floats import widen
from novacron.kv_tiers.codecs.layout import FloatName
from novacron.models.decoder_config import DecoderConfig, LayerConfig, RopeConfig
from novacron.parallel.groups import SINGLE
from novacron.runner.kv_tensors import KVTensors
from novacron.testing.kv_layouts import make_block, make_layout

LEVELS: tuple[KVLevel, ...] = ("int8", "fp8", "int8/int4", "int4")


def native_names() -> tuple[str, ...]:
    try:
        return native_levels()
    except NativeUnavailable:
        return ()


@pytest.mark.parametrize("name", native_names())
@pytest.mark.parametrize(
    ("dtype", "cell", "num_tokens", "head_dim"),
    [
        ("float32", 1, 16, 64),
        ("bfloat16", 2, 16, 64),
        ("float16", 2, 8, 32),
        ("bfloat16", None, 16, 64),
        ("float32", None, 128, 48),
        ("bfloat16", 4, 16, 80),
        ("float32", 1, 32, 20),
    ],
)
def test_native_codes_are_those_of_numpy(
    name: str, dtype: FloatName, cell: int | None, num_tokens: int, head_dim: int
) -> None:
    native = partial(code_kv, NativeContext(1, name))
    layout = make_layout(dtype, key_cell=cell, num_tokens=num_tokens, head_dim=head_dim)
    for level in LEVELS:
        for seed, outliers in ((1, 1.0), (2, 500.0), (3, 1e-5)):
            block = make_block(layout, seed, outliers=outliers)
            codes, blocks, losses = [], [], []
            for codec in (make_codec(level, layout), make_block_codec(level, layout, native)):
                code, left = np.zeros(codec.encoded_bytes, np.uint8), np.zeros_like(block)
                losses.append(codec.encode(block, code))
                codec.decode(code, left)
                codes.append(code)
                blocks.append(left)
            assert (codes[0] == codes[1]).all()
            assert (blocks[0] == blocks[1]).all()
            assert losses[0].keys == pytest.approx(losses[1].keys, rel=1e-4)
            assert losses[0].values == pytest.approx(losses[1].values, rel=1e-4)


@pytest.mark.parametrize("name", native_names()[-1:])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_natively_too_what_is_not_finite_is_refused(name: str, bad: float) -> None:
    layout = make_layout()
    for level in LEVELS:
        codec = make_block_codec(level, layout, partial(code_kv, NativeContext(1, name)))
        for run in layout.runs:
            block = make_block(layout, 5)
            run.view(block)[1, -1, -1, -1, -1] = bad
            assert codec.encode(block, np.empty(codec.encoded_bytes, np.uint8)).largest == np.inf


def all_kernels() -> list[Kernels]:
    best = native_names()[-1:]
    return [TORCH_KERNELS, *(native_kernels(NativeContext(1, name)) for name in best)]


HEADS, DIMS, BLOCK = 3, 16, 8
CONFIG = DecoderConfig(
    vocab_size=100,
    hidden_size=48,
    num_heads=HEADS,
    num_kv_heads=HEADS,
    head_dim=DIMS,
    ffn_size=128,
    layers=(LayerConfig(rope=RopeConfig(theta=1e4, rotary_dim=8)),) * 2,
    context_length=512,
    longest_context=512,
    norm_eps=1e-6,
    attention_scale=1.0,
)


def make_cache(dtype: KVDtype, **cache: str) -> KVTensors:
    formats = choose_kv_formats(CacheConfig(**cache), 2, KVPrecision(dtype, dtype))  # type: ignore[arg-type]
    return KVTensors(
        CONFIG, SINGLE, num_blocks=2, block_size=BLOCK, formats=formats, device=torch.device("cpu")
    )


@pytest.mark.parametrize("kernels", all_kernels(), ids=lambda kernels: kernels.kv_layout)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_layout_is_where_attention_puts_keys_and_values(kernels: Kernels, dtype: KVDtype) -> None:
    cache = make_cache(dtype)
    layout = block_layout(cache.formats, kernels, num_heads=HEADS, block_size=BLOCK, head_dim=DIMS)
    torch.manual_seed(0)
    computed = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    keys, values = torch.randn(2, 2, BLOCK, HEADS, DIMS).to(computed)  # [layer, S, H, D] each
    step = AttentionMetadata(
        rows=(Row(0, 0, BLOCK),),
        num_decodes=0,
        block_size=BLOCK,
        block_tables_RB=torch.tensor([[1]]),
        lengths_R=torch.tensor([BLOCK]),
        slots_T=torch.arange(BLOCK, 2 * BLOCK),
        rows_R3=torch.tensor([[0, 0, BLOCK]]),
    )
    plan = kernels.plan_attention(step, None)
    for layer, key, value in zip(cache.layers, keys, values, strict=True):
        plan.attend(key, key, value, layer, 1.0, None)
    block = np.empty(cache.block_bytes, np.uint8)
    cache.read_block(1, block)
    assert layout.block_bytes == cache.block_bytes
    for run, expected in zip(layout.runs, (keys, values), strict=True):
        found = np.moveaxis(widen(run.view(block)), 2, 3).reshape(2, HEADS, BLOCK, DIMS)
        stored = expected.to(getattr(torch, dtype)).float()
        assert (torch.from_numpy(found) == stored.transpose(1, 2)).all()


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8", "int4", "bf16/int8"])
def test_rounded_blocks_are_not_rounded_again(kv_dtype: str) -> None:
    cache = make_cache("bfloat16", kv_cache_dtype=kv_dtype)
    with pytest.raises(ConfigError, match="rounded twice"):
        block_layout(cache.formats, TORCH_KERNELS, num_heads=HEADS, block_size=8, head_dim=DIMS)
