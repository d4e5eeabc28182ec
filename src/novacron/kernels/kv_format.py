"""What a block of the KV cache holds, and how many bytes that takes. No torch, no native library.

A block is self-contained: where a format has scales, they lie behind the data of their block. Which
byte is what differs between kernels (Kernels.kv_layout), the size does not: csrc/kv_block.h has the
same arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from novacron.config.cache import CacheConfig
from novacron.config.kv_layers import KVDtype, KVPrecision, choose_kv_dtypes

_BITS: dict[KVDtype, int] = {
    "float32": 32,
    "bfloat16": 16,
    "float16": 16,
    "int8": 8,
    "fp8": 8,
    "int4": 4,
}
_SCALE_BYTES = 2  # a bfloat16
_DIMS_PER_INT4_SCALE = 32
_SCALED_BLOCK_ALIGNMENT = 64


@dataclass(frozen=True)
class KVFormat:
    """The precision of one layer's keys, or values.

    int8, fp8 (e4m3) and int4 are multiplied by scales: one per token and head, for int4 one per 32
    dimensions of it.
    """

    dtype: KVDtype

    @property
    def is_scaled(self) -> bool:
        return _BITS[self.dtype] <= 8

    def padded_dims(self, head_dim: int) -> int:
        """Dimensions of a head that are held: whole words of 4 bytes, whole groups of a scale."""
        unit = _DIMS_PER_INT4_SCALE if self.dtype == "int4" else 32 // _BITS[self.dtype]
        return -(-head_dim // unit) * unit

    def group_size(self, head_dim: int) -> int:
        """Dimensions of a head that share a scale."""
        return _DIMS_PER_INT4_SCALE if self.dtype == "int4" else self.padded_dims(head_dim)

    def token_bytes(self, head_dim: int) -> int:
        """Of a token of one head, its scales included."""
        dims = self.padded_dims(head_dim)
        num_scales = dims // self.group_size(head_dim) if self.is_scaled else 0
        return dims * _BITS[self.dtype] // 8 + num_scales * _SCALE_BYTES

    def block_bytes(self, block_size: int, head_dim: int) -> int:
        """Of a block of one head."""
        num_bytes = block_size * self.token_bytes(head_dim)
        if not self.is_scaled:
            return num_bytes
        return -(-num_bytes // _SCALED_BLOCK_ALIGNMENT) * _SCALED_BLOCK_ALIGNMENT


class LayerFormat(NamedTuple):
    """Of one layer's keys and of its values."""

    key: KVFormat
    value: KVFormat

    @property
    def name(self) -> str:
        """As kv_cache_dtype has it: "int8", or "int8/int4"."""
        key, value = self.key.dtype, self.value.dtype
        return key if key == value else f"{key}/{value}"

    def block_bytes(self, block_size: int, head_dim: int) -> int:
        """Of a block of keys and one of values, of one head."""
        return sum(kind.block_bytes(block_size, head_dim) for kind in self)


def choose_kv_formats(
    cache: CacheConfig, num_layers: int, auto: KVPrecision
) -> tuple[LayerFormat, ...]:
    """The format of each layer, where "auto" means `auto`. Raises ConfigError if a layer is named
    that is not there."""
    return tuple(
        LayerFormat(KVFormat(chosen.key), KVFormat(chosen.value))
        for chosen in choose_kv_dtypes(cache, num_layers, auto)
    )


def describe_kv_formats(formats: tuple[LayerFormat, ...]) -> str:
    """Their names, runs of equal layers counted: "int8", or "2 x bfloat16, 26 x int8/int4"."""
    runs = [(name, len(list(run))) for name, run in groupby(layer.name for layer in formats)]
    if len(runs) == 1:
        return runs[0][0]
    return ", ".join(f"{count} x {name}" for name, count in runs)
