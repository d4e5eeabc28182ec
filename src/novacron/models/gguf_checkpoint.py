"""The weights of a GGUF file as a Hugging Face checkpoint would have them: its names, its order of
rows, and float32."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.gguf_config import ROPE_FACTORS, paired_head_dim
from novacron.models.gguf_file import GGUFFile, TensorInfo
from novacron.models.gguf_names import hugging_face_names
from novacron.models.gguf_tensors import checked_format, read_rows

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ROTATED = re.compile(r"blk\.\d+\.attn_[qk]\.(weight|bias)")


class GGUFCheckpoint:
    """Implements WeightFiles. Raises ModelLoadError if a tensor cannot be read."""

    settings: Path | None = None

    def __init__(self, file: GGUFFile) -> None:
        self.files = (file.path,)
        self._file = file
        self._formats = {name: checked_format(file, name) for name in file.tensors}
        self._names = hugging_face_names(file.tensors.keys() - {ROPE_FACTORS})
        self._paired_head_dim = paired_head_dim(file)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    @property
    def dtype(self) -> str:
        """That of most weights, or bfloat16: rounded ones have no more digits than it."""
        return _DTYPES.get(self._usual_format, "bfloat16")

    @property
    def rounded_to(self) -> str | None:
        """The format of most weights; None if it rounds no more than a float does."""
        return None if self._usual_format in _DTYPES else self._usual_format

    def dtype_of(self, name: str) -> str:
        return _DTYPES.get(self._formats[self._info(name).name].name, self.dtype)

    def header_bytes(self, path: Path) -> int:
        return self._file.header_bytes

    def file_of(self, name: str) -> Path:
        self._info(name)
        return self._file.path

    def shape(self, name: str) -> tuple[int, ...]:
        return self._info(name).shape

    def read(self, name: str, index: tuple[slice, ...]) -> Tensor:
        info = self._info(name)
        rows: slice | Tensor = index[0]
        if self._paired_head_dim is not None and _ROTATED.fullmatch(info.name):
            rows = _places_in_pairs(info.shape[0], self._paired_head_dim)[rows]
        return read_rows(self._file, info.name, rows)[(slice(None), *index[1:])]

    @property
    def _usual_format(self) -> str:
        num_values: Counter[str] = Counter()
        for name, info in self._file.tensors.items():
            num_values[self._formats[name].name] += info.num_values
        [(usual, _)] = num_values.most_common(1)
        return usual

    def _info(self, name: str) -> TensorInfo:
        if name not in self._names:
            raise ModelLoadError(
                f"{self._file.path}: there is no tensor for what Hugging Face calls '{name}'."
            )
        return self._file.tensors[self._names[name]]


def _places_in_pairs(num_rows: int, head_dim: int) -> Tensor:
    """Where Hugging Face's rows of queries or keys are in a file that has them in pairs.

    Two rows of a head turn together: i and head_dim / 2 + i there, 2i and 2i + 1 here.
    """
    places = torch.arange(num_rows).view(-1, head_dim // 2, 2)
    return places.transpose(1, 2).flatten()
