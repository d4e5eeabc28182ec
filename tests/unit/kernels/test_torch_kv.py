from __future__ import annotations

import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.config.kv_layers import KVDtype, KVPrecision
from novacron.kernels.kv_format import KVFormat, choose_kv_formats, describe_kv_formats
from novacron.kernels.torch_kv import as_stored, read_kv, write_kv

BLOCK, HEADS, HEAD_DIM = 8, 2, 40
ERRORS: dict[KVDtype, float] = {  # of numbers up to about 3
    "float32": 0.0,
    "bfloat16": 8e-3,
    "float16": 1e-3,
    "int8": 0.015,
    "fp8": 0.13,
    "int4": 0.25,
}


@pytest.mark.parametrize("kv_dtype", ERRORS)
def test_what_is_written_is_read(kv_dtype: KVDtype) -> None:
    torch.manual_seed(0)
    kind, values = KVFormat(kv_dtype), torch.randn(20, HEADS, HEAD_DIM).clamp_(-3, 3)
    stored = torch.zeros(HEADS, 5, kind.block_bytes(BLOCK, HEAD_DIM), dtype=torch.uint8)
    blocks = torch.tensor([4, 1, 2])
    places = torch.arange(20)
    slots = blocks[places // BLOCK] * BLOCK + places % BLOCK
    write_kv(stored, kind, BLOCK, slots[:13], values[:13])
    write_kv(stored, kind, BLOCK, slots[13:], values[13:])
    found = read_kv(stored, kind, BLOCK, blocks, HEAD_DIM)[:, :20].transpose(0, 1)
    assert torch.equal(found.to(values.dtype), as_stored(values, kind))
    error = (found.float() - values).abs().max().item()
    assert ERRORS[kv_dtype] / 50 <= error <= ERRORS[kv_dtype]
    assert not bool(stored[:, [0, 3]].any()), "blocks of others"


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8", "int4"])
def test_a_block_is_all_there_is_of_its_tokens(kv_dtype: KVDtype) -> None:
    kind, values = KVFormat(kv_dtype), torch.randn(BLOCK, HEADS, HEAD_DIM)
    stored = torch.zeros(HEADS, 2, kind.block_bytes(BLOCK, HEAD_DIM), dtype=torch.uint8)
    write_kv(stored, kind, BLOCK, torch.arange(BLOCK), values)
    before = read_kv(stored, kind, BLOCK, torch.tensor([0]), HEAD_DIM)
    stored[:, 1] = stored[:, 0].clone()
    stored[:, 0] = 0xFF
    assert torch.equal(read_kv(stored, kind, BLOCK, torch.tensor([1]), HEAD_DIM), before)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8", "int4"])
def test_zeros_and_what_is_not_finite(kv_dtype: KVDtype) -> None:
    values = torch.zeros(3, 1, HEAD_DIM)
    values[1, 0, 7], values[2, 0, 7] = torch.nan, -torch.inf
    found = as_stored(values, KVFormat(kv_dtype))
    assert not bool(found[0].any())
    assert not bool(found[1].isfinite().all())
    assert not bool(found[2].isfinite().all())


def test_sizes() -> None:
    sizes = {kv_dtype: KVFormat(kv_dtype).block_bytes(16, 64) for kv_dtype in ERRORS}
    assert sizes == {
        "float32": 4096,
        "bfloat16": 2048,
        "float16": 2048,
        "int8": 1088,
        "fp8": 1088,
        "int4": 576,
    }


def test_names() -> None:
    def described(*layers: str, of: str = "auto") -> str:
        cache = CacheConfig(kv_cache_dtype=of, kv_cache_dtype_layers=layers)
        return describe_kv_formats(choose_kv_formats(cache, 6, KVPrecision("float32", "float32")))

    assert described() == described(of="float32/auto") == "float32"
    assert described(":2=bf16", of="int8") == "2 x bfloat16, 4 x int8"
    assert described("-1=bf16/int8", of="int8/int4") == "5 x int8/int4, 1 x bfloat16/int8"
    assert described(of="int4/int8") == "int4/int8", "the keys come first"
