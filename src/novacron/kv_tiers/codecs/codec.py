"""BlockCodec: a block in fewer bytes, and back.

Keys share a scale along the tokens of a block, channel by channel: some channels of keys are large
for all tokens, and would leave the others no digits. Values share one along the dimensions of a
token, in 4 bits one per 32 of them. A block is stored when it is full and never grows, so that a
scale over tokens, which the device's own cache cannot have (ADR 11), costs nothing here.

Source: keys per channel and values per token as in KIVI (Liu et al., ICML 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from novacron.config.kv_compression import KVLevel
from novacron.kv_tiers.codecs.floats import Floats, to_bfloat16, widen
from novacron.kv_tiers.codecs.layout import BlockLayout, Run
from novacron.kv_tiers.codecs.number_codes import CODES, CodeName, scaled_down, scales_of
from novacron.kv_tiers.tier import Bytes

_SCALE_BYTES: Final = 2
_DIMS_PER_INT4_SCALE: Final = 32
_CODES_OF: Final[dict[KVLevel, tuple[CodeName, CodeName]]] = {
    "int8": ("int8", "int8"),
    "fp8": ("fp8", "fp8"),
    "int8/int4": ("int8", "int4"),
    "int4": ("int4", "int4"),
}


@dataclass(frozen=True, slots=True)
class Loss:
    """What a block loses, as relative errors |x - y| / |x| over the numbers of a layer: the largest
    of its layers' keys, and of its values. Infinite where a number is not finite. Of numbers whose
    squares float32 can tell from zero."""

    keys: float = 0.0
    values: float = 0.0

    @property
    def largest(self) -> float:
        return max(self.keys, self.values)


class BlockCodec(Protocol):
    """Of one level and one layout of blocks. Keeps no state: any thread may call it."""

    @property
    def level(self) -> KVLevel: ...

    @property
    def encoded_bytes(self) -> int:
        """Of every block, whatever it holds."""
        ...

    def encode(self, block: Bytes, into: Bytes) -> Loss:
        """Write the block's code, `encoded_bytes`. Worth nothing where the loss is infinite."""
        ...

    def decode(self, code: Bytes, into: Bytes) -> None:
        """Write the block that is left of it."""
        ...


class RunCodec(Protocol):
    """The arithmetic of one run of a block."""

    @property
    def encoded_bytes(self) -> int: ...

    def encode(self, block: Bytes, into: Bytes) -> float:
        """Returns the largest relative error of a part."""
        ...

    def decode(self, code: Bytes, into: Bytes) -> None: ...


class RawCodec:
    """The block as it is. Implements BlockCodec."""

    level: KVLevel = "raw"

    def __init__(self, block_bytes: int) -> None:
        self.encoded_bytes = block_bytes

    def encode(self, block: Bytes, into: Bytes) -> Loss:
        np.copyto(into, block)
        return Loss()

    def decode(self, code: Bytes, into: Bytes) -> None:
        np.copyto(into, code)


class RoundingCodec:
    """The runs of a block one after the other. Implements BlockCodec."""

    def __init__(self, level: KVLevel, runs: Sequence[Run], codecs: Sequence[RunCodec]) -> None:
        self.level = level
        sizes = [codec.encoded_bytes for codec in codecs]
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self.encoded_bytes = sum(sizes)
        self._parts = tuple(
            (run.role, codec, slice(start, start + size))
            for run, codec, start, size in zip(runs, codecs, starts, sizes, strict=True)
        )

    def encode(self, block: Bytes, into: Bytes) -> Loss:
        errors = [(role, codec.encode(block, into[part])) for role, codec, part in self._parts]
        return Loss(
            keys=_largest(error for role, error in errors if role == "key"),
            values=_largest(error for role, error in errors if role == "value"),
        )

    def decode(self, code: Bytes, into: Bytes) -> None:
        for _, codec, part in self._parts:
            codec.decode(code[part], into)


class NumpyRunCodec:
    """Codes of a run: its scales [N, H, groups], then its codes in the same order. Implements
    RunCodec; the reference of csrc/kernels/kv_codec.h."""

    def __init__(self, run: Run, code: CodeName) -> None:
        self._run, self._code = run, CODES[code]
        self._is_key = run.role == "key"
        self.group = group_size(run, code)
        self._numbers = run.num_parts * run.part_bytes // run.element.itemsize
        self.scales_bytes = self._numbers // self.group * _SCALE_BYTES
        self.encoded_bytes = self.scales_bytes + self._numbers * self._code.bits // 8

    def encode(self, block: Bytes, into: Bytes) -> float:
        with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite, told below
            grouped = self._grouped(widen(self._run.view(block)))
            if not np.isfinite(grouped).all():
                return float("inf")
            scales = scales_of(grouped, -1, self._code)
        codes = self._code.encode(scaled_down(grouped, scales, self._code))
        into[: self.scales_bytes] = scales.view(np.uint8).reshape(-1)
        into[self.scales_bytes :] = codes.reshape(-1)
        return _error_of(grouped, self._code.decode(codes) * widen(scales))

    def decode(self, code: Bytes, into: Bytes) -> None:
        run = self._run
        scales = code[: self.scales_bytes].copy().view(np.uint16)
        codes = code[self.scales_bytes :].reshape(scales.size, -1)
        numbers = self._code.decode(codes) * widen(scales)[:, None]
        if run.dtype == "bfloat16":
            self._grouped_out(run.view(into))[...] = to_bfloat16(numbers).reshape(self._shape)
        else:
            self._grouped_out(run.view(into))[...] = numbers.reshape(self._shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        run = self._run
        parts = (run.num_parts, run.num_heads)
        width = run.head_dim // run.cell
        if self._is_key:
            return (*parts, width, run.cell, run.num_tokens)
        return (*parts, run.num_tokens, width, run.cell)

    def _grouped_out(self, view: NDArray[Any]) -> NDArray[Any]:
        """[N, H, D / C, S, C] as [N, H, D / C, C, S] for keys, [N, H, S, D / C, C] for values."""
        return np.moveaxis(view, 3, 4) if self._is_key else np.moveaxis(view, 3, 2)

    def _grouped(self, numbers: Floats) -> Floats:
        """[N, groups, numbers of a group]."""
        return np.ascontiguousarray(self._grouped_out(numbers)).reshape(
            self._run.num_parts, -1, self.group
        )


def group_size(run: Run, code: CodeName) -> int:
    """Numbers that share a scale."""
    if run.role == "key":
        return run.num_tokens
    is_fine = code == "int4" and run.head_dim % _DIMS_PER_INT4_SCALE == 0
    return _DIMS_PER_INT4_SCALE if is_fine else run.head_dim


def code_of(level: KVLevel, run: Run) -> CodeName:
    keys, values = _CODES_OF[level]
    return keys if run.role == "key" else values


def make_codec(
    level: KVLevel, layout: BlockLayout, make: Callable[[Run, CodeName], RunCodec] = NumpyRunCodec
) -> BlockCodec:
    """The codec of a level for blocks of this layout."""
    if level == "raw":
        return RawCodec(layout.block_bytes)
    codecs = [make(run, code_of(level, run)) for run in layout.runs]
    return RoundingCodec(level, layout.runs, codecs)


def _error_of(numbers: Floats, left: Floats) -> float:
    """The largest of the parts' relative errors."""
    difference = (left - numbers).reshape(len(numbers), -1)
    flat = numbers.reshape(len(numbers), -1)
    lost = np.einsum("ij,ij->i", difference, difference)
    whole = np.einsum("ij,ij->i", flat, flat)
    shares = np.divide(lost, whole, out=np.zeros_like(lost), where=whole > 0)
    return float(np.sqrt(shares.max()))


def _largest(errors: Iterable[float]) -> float:
    return max(errors, default=0.0)
