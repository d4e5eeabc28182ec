"""How the matrices of a decoder are held: the levels of a PrecisionMap, as kernels take them.

A matrix may be several of a checkpoint, stacked so that one product computes them all (queries,
keys and values; gate and up). They share a form, so all have the finest level of those asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import blake3
import torch

from novacron.kernels.linear import FLOAT8, Quantization
from novacron.models.layers.matrix import Matrix
from novacron.quantization.components import Component
from novacron.quantization.levels import ROUNDED, Level, finest, usual_group_size, usual_sharing
from novacron.quantization.precision_map import PrecisionMap
from novacron.quantization.profiles import PROFILES
from novacron.quantization.resolution import Holdings, resolve

_DIGEST_BYTES = 4
_LEVELS: dict[torch.dtype, Level] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


@dataclass(frozen=True)
class WeightPrecision:
    """`group_size` is how many neighbouring weights share a scale, where whole numbers do and no
    override says otherwise; None: what is usual."""

    levels: PrecisionMap = field(default_factory=PrecisionMap)
    group_size: int | None = None

    @classmethod
    def uniform(cls, quantization: Quantization | None) -> WeightPrecision:
        """All matrices of layers as `quantization` says, the vocabulary as find_profile does."""
        if quantization is None:
            return cls()
        return cls(PrecisionMap(quantization.level), quantization.group_size)

    @property
    def rounds(self) -> bool:
        return not ROUNDED.isdisjoint(self.levels.levels)

    def check_patterns(self, matrices: Iterable[Matrix]) -> None:
        """Raises ConfigError if an exception from the profile is for none of them."""
        self.levels.check_patterns([name for matrix in matrices for name in matrix.names])

    def wanted(self, names: Iterable[str], *, is_tied: bool) -> Level | None:
        """The level asked for of a matrix that is made of these. `is_tied`: an embedding that gives
        the output too."""
        also: tuple[Component, ...] = ("output_head",) if is_tied else ()
        return finest(self.levels.level_of(name, *also) for name in names)

    def quantization_of(
        self, matrix: Matrix, rounded: frozenset[Level], *, is_tied: bool
    ) -> Quantization | None:
        """As kernels that can take the levels `rounded` are told, where others compute in the type
        of the matrix; None: not rounded."""
        computed = level_of_dtype(matrix.dtype)
        wanted = self.wanted(matrix.names, is_tied=is_tied)
        level = resolve(wanted, Holdings(computed, computed, rounded)).level
        if level == "fp8":
            return FLOAT8
        if level not in ("int8", "int4"):
            return None
        num_inputs = matrix.shape[1] * matrix.parts
        size = self._group_size(matrix, num_inputs, level, is_tied)
        sharing = usual_sharing(level, size, num_inputs)
        return Quantization(8 if level == "int8" else 4, size, sharing=sharing)

    def _group_size(self, matrix: Matrix, num_inputs: int, level: Level, is_tied: bool) -> int:
        """The smallest that is asked for any of those that have the level themselves."""
        usual = self.group_size or usual_group_size(level, num_inputs)
        return min(
            self.levels.group_size_of(name) or usual
            for name in matrix.names
            if self.wanted((name,), is_tied=is_tied) == level
        )


def level_of_dtype(dtype: torch.dtype) -> Level:
    return _LEVELS[dtype]


def identity_of(matrices: Iterable[Matrix]) -> str:
    """Names the precision of each matrix, for what depends on it: the bits of keys and values, and
    weights as they are packed. Empty if none is rounded."""
    hasher = blake3.blake3()
    kinds = set()
    for matrix in sorted(matrices, key=lambda matrix: matrix.names):
        if matrix.quantization is not None:
            kinds.add(_short(matrix.quantization))
            hasher.update(f"{_short(matrix.quantization)} {' '.join(matrix.names)}\n".encode())
    return "-".join((*sorted(kinds), hasher.hexdigest(_DIGEST_BYTES))) if kinds else ""


def described(matrices: Iterable[Matrix], dtype: torch.dtype, base: str = "none") -> str:
    """For people: "int8 in groups of 128", or "balanced: int8 in groups of 128, some bfloat16",
    what most weights are held in first; "none" if no matrix is rounded. `base` is that of a
    PrecisionMap."""
    weights: Counter[Quantization | None] = Counter()
    for matrix in matrices:
        weights[matrix.quantization] += matrix.shape[0] * matrix.shape[1]
    kinds = [kind for kind, _ in weights.most_common() if kind is not None]
    if not kinds:
        return "none"
    groups: dict[Level, list[str]] = {}
    for kind in kinds:
        groups.setdefault(kind.level, []).extend([] if kind.is_float else [str(kind.group_size)])
    text = ", ".join(
        f"{level} in groups of {' and '.join(sizes)}" if sizes else level
        for level, sizes in groups.items()
    )
    if None in weights:
        text += f", some {str(dtype).removeprefix('torch.')}"
    return f"{base}: {text}" if base in PROFILES else text


def _short(quantization: Quantization) -> str:
    if quantization.is_float:
        return quantization.level
    span = f"x{quantization.sharing}" if quantization.sharing > 1 else ""
    return f"{quantization.level}g{quantization.group_size}{span}"
