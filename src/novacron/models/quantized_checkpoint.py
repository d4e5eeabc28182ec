"""Checkpoints whose weights are quantised already, shown as if they were not.

`dense` is called where a checkpoint is opened. Below it, everything sees dense weights under their
usual names and knows nothing of formats: a matrix is made from its packed tensors when it is read.
So a model takes the memory of the precision in which it is held, not that of its files. Where that
precision is the very form in which a matrix is stored, loading takes it as it is: see RoundedFiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.kernels.linear import Quantization, Rounded
from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized import awq, bitsandbytes, compressed_tensors, fp8, gptq
from novacron.models.quantized.stored_module import FLOATS, PackedMatrix, RoundedMatrix
from novacron.models.weight_files import WeightFiles

_SECTION = "quantization_config"
_METHODS: Mapping[str, Callable[[Checkpoint, HFConfig], Iterator[PackedMatrix]]] = {
    "awq": awq.packed_matrices,
    "bitsandbytes": bitsandbytes.packed_matrices,
    "compressed-tensors": compressed_tensors.packed_matrices,
    "fbgemm_fp8": fp8.packed_matrices,
    "fp8": fp8.packed_matrices,
    "gptq": gptq.packed_matrices,
}
# Measures for rounding activations and the KV cache, which we do by our own settings.
_UNUSED = re.compile(r"\.(?:[qkv]|input|output)_(?:scale|zero_point)$")


def quantization_method(config: HFConfig) -> str | None:
    """How config.json says that the weights are quantised; None if they are not."""
    if not config.has(_SECTION):
        return None
    return config.section(_SECTION).text("quant_method", "unknown")


def dense(checkpoint: Checkpoint, config: HFConfig) -> WeightFiles:
    """The checkpoint with dense weights only. Raises ModelLoadError for methods that we do not
    read, and for packed tensors that are not as their method wants them."""
    method = quantization_method(config)
    if method is None:
        _refuse_numbers_without_meaning(checkpoint, checkpoint.names)
        return checkpoint
    if method not in _METHODS:
        raise config.error(
            f"the weights are quantised by the method '{method}', which is not supported. "
            f"Supported: {', '.join(sorted(_METHODS))}, and checkpoints that are not quantised"
        )
    return DenseCheckpoint(checkpoint, _METHODS[method](checkpoint, config.section(_SECTION)))


class DenseCheckpoint:
    """A checkpoint of which some matrices are packed. Implements WeightFiles."""

    def __init__(self, stored: Checkpoint, matrices: Iterable[PackedMatrix]) -> None:
        self.settings: Path | None = stored.settings
        self.files = stored.files
        self._stored = stored
        self._matrices = {matrix.module.tensor_name("weight"): matrix for matrix in matrices}
        packed = {
            matrix.module.tensor_name(part)
            for matrix in self._matrices.values()
            for part in matrix.parts
        }
        plain = {name for name in stored.names - packed if not _UNUSED.search(name)}
        _refuse_numbers_without_meaning(stored, plain)
        self._names = frozenset(plain | self._matrices.keys())

    @property
    def names(self) -> frozenset[str]:
        return self._names

    @property
    def dtype(self) -> str:
        """The precision of what is not packed: embeddings and norms never are."""
        plain = sorted(self._names - self._matrices.keys())
        return next(filter(FLOATS.__contains__, map(self._stored.dtype_of, plain)), "float32")

    def header_bytes(self, path: Path) -> int:
        return self._stored.header_bytes(path)

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor, or the first part of it."""
        matrix = self._matrices.get(name)
        if matrix is None:
            return self._stored.file_of(name)
        return self._stored.file_of(matrix.module.tensor_name(next(iter(matrix.parts))))

    def shape(self, name: str) -> tuple[int, ...]:
        matrix = self._matrices.get(name)
        return self._stored.shape(name) if matrix is None else matrix.shape

    def rounded(self, name: str, rows: slice, quantization: Quantization) -> Rounded | None:
        """Implements RoundedFiles."""
        matrix = self._matrices.get(name)
        if not isinstance(matrix, RoundedMatrix):
            return None
        wanted = range(matrix.shape[0])[rows]
        return matrix.rounded(wanted.start, wanted.stop, quantization)

    def dtype_of(self, name: str) -> str:
        return self.dtype if name in self._matrices else self._stored.dtype_of(name)

    def read(self, name: str, index: tuple[slice, ...]) -> Tensor:
        """A slice of a tensor; one of packed weights in float32."""
        matrix = self._matrices.get(name)
        if matrix is None:
            return self._stored.read(name, index)
        rows = range(matrix.shape[0])[index[0]]
        return matrix.rows(rows.start, rows.stop)[:, index[1]]


def _refuse_numbers_without_meaning(checkpoint: Checkpoint, plain: Iterable[str]) -> None:
    """Whole numbers and FP8 would fit into the model, and make it talk nonsense."""
    for name in plain:
        dtype = checkpoint.dtype_of(name) if name.endswith(".weight") else FLOATS[0]
        if dtype not in (*FLOATS, "float64"):
            raise ModelLoadError(
                f"{checkpoint.file_of(name)}: the tensor '{name}' is stored as {dtype}, and "
                f"neither '{_SECTION}' in config.json nor the tensors beside it say what its "
                "numbers mean. The download may be incomplete."
            )
