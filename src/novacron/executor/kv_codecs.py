"""The codecs of an engine's blocks: where its kernels put keys and values, and who rounds them.

Only of blocks in floats: what the cache has rounded already is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from novacron.config.kv_compression import KVLevel
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint
from novacron.kernels.kv_format import KVFormat, LayerFormat
from novacron.kernels.native.kv_codec import code_kv
from novacron.kernels.native.library import (
    KV_FORMATS,
    KVCodecCall,
    NativeContext,
    NativeUnavailable,
)
from novacron.kernels.table import Kernels
from novacron.kv_tiers.codecs.codec import BlockCodec, NumpyRunCodec, RawCodec, make_codec
from novacron.kv_tiers.codecs.layout import BlockLayout, FloatName, Role, Run, layout_of
from novacron.kv_tiers.codecs.number_codes import CodeName
from novacron.kv_tiers.tier import Bytes
from novacron.runner.kv_tensors import KVTensors

CodeKV = Callable[[KVCodecCall], None]
_FLOATS: Final[dict[str, FloatName]] = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}


def block_layout(
    formats: Sequence[LayerFormat],
    kernels: Kernels,
    *,
    num_heads: int,
    block_size: int,
    head_dim: int,
) -> BlockLayout:
    """Where the keys and values of a block lie. Raises ConfigError where they are not plain floats
    in the order that a codec knows."""
    parts: list[Run] = []
    start = 0
    for layer in formats:
        kinds: tuple[tuple[Role, KVFormat], ...] = (("key", layer.key), ("value", layer.value))
        for role, kind in kinds:
            dtype = _FLOATS.get(kind.dtype)
            if dtype is None:
                raise ConfigError(
                    f"KV tiers cannot compress blocks whose {role}s are cached in {kind.dtype}: "
                    "they would be rounded twice. Choose kv_cache_dtype auto, or raw compression."
                )
            if kind.padded_dims(head_dim) != head_dim:
                raise ConfigError(
                    f"KV tiers cannot compress blocks of heads of {head_dim} dimensions in {dtype}."
                    " Choose raw compression."
                )
            part = Run(
                role,
                dtype,
                start,
                stride=num_heads * kind.block_bytes(block_size, head_dim),
                num_parts=1,
                num_heads=num_heads,
                num_tokens=block_size,
                head_dim=head_dim,
                cell=_cell(role, kind, kernels, head_dim),
            )
            parts.append(part)
            start += part.part_bytes
    return layout_of(parts)


def _cell(role: Role, kind: KVFormat, kernels: Kernels, head_dim: int) -> int:
    """Dimensions of a token that lie together."""
    if role == "value" or kernels.key_cell_bytes is None:
        return head_dim
    return kernels.key_cell_bytes * head_dim // kind.token_bytes(head_dim)


def make_block_codec(level: KVLevel, layout: BlockLayout, code_kv: CodeKV | None) -> BlockCodec:
    """Of the native library, where there is one; to the bit the same without."""
    if code_kv is None:
        return make_codec(level, layout)
    return make_codec(level, layout, partial(NativeRunCodec, code_kv=code_kv))


def codec_of_cache(level: KVLevel, tensors: KVTensors, blueprint: Blueprint) -> BlockCodec:
    """Of the blocks of a cache. Raises ConfigError where they cannot be compressed."""
    if level == "raw":
        return RawCodec(tensors.block_bytes)
    layout = block_layout(
        tensors.formats,
        blueprint.kernels,
        num_heads=tensors.num_heads,
        block_size=tensors.block_size,
        head_dim=blueprint.config.head_dim,
    )
    return make_block_codec(level, layout, _open_code_kv())


def _open_code_kv() -> CodeKV | None:
    """Whatever kernels compute: a GPU's blocks are rounded by the processor."""
    try:
        return partial(code_kv, NativeContext(1))
    except NativeUnavailable:  # said when the kernels were chosen
        return None


class NativeRunCodec:
    """A run rounded by the native library. Implements RunCodec."""

    def __init__(self, run: Run, code: CodeName, *, code_kv: CodeKV) -> None:
        shape = NumpyRunCodec(run, code)
        assert run.role == "key" or run.cell == run.head_dim
        self.encoded_bytes = shape.encoded_bytes
        self._run, self._code_kv, self._scales_bytes = run, code_kv, shape.scales_bytes
        self._sizes = {
            "num_parts": run.num_parts,
            "part_stride": run.stride,
            "num_heads": run.num_heads,
            "num_tokens": run.num_tokens,
            "head_dim": run.head_dim,
            "cell": run.cell,
            "group": shape.group,
            "type": KV_FORMATS[run.dtype],
            "code": KV_FORMATS[code],
            "is_key": run.role == "key",
        }

    def encode(self, block: Bytes, into: Bytes) -> float:
        errors = np.empty(self._run.num_parts, np.float32)
        self._call(block, into, errors, is_encoding=True)
        return float(errors.max())

    def decode(self, code: Bytes, into: Bytes) -> None:
        self._call(into, code, np.empty(0, np.float32), is_encoding=False)

    def _call(
        self, block: Bytes, code: Bytes, errors: NDArray[np.float32], *, is_encoding: bool
    ) -> None:
        assert block.flags.c_contiguous
        assert code.flags.c_contiguous
        call = KVCodecCall(
            block=block.ctypes.data + self._run.start,
            scales=code.ctypes.data,
            codes=code.ctypes.data + self._scales_bytes,
            errors=errors.ctypes.data,
            is_encoding=is_encoding,
            **self._sizes,
        )
        self._code_kv(call)
