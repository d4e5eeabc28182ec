"""The weights of a GGUF model as a Hugging Face checkpoint would have them: its names, its order of
rows, and float32."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.gguf_config import ROPE_FACTORS
from novacron.models.gguf_metadata import expert_names, paired_head_dim
from novacron.models.gguf_model import GGUFModel
from novacron.models.gguf_names import Place, hugging_face_names
from novacron.models.gguf_tensors import checked_format, read_rows

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ROTATED = re.compile(r"blk\.\d+\.attn_[qk]\.(weight|bias)")


class GGUFCheckpoint:
    """Implements WeightFiles. Raises ModelLoadError if a tensor cannot be read."""

    settings: Path | None = None

    def __init__(self, model: GGUFModel) -> None:
        self.files = tuple(part.path for part in model.parts)
        self._model = model
        tensors = dict(model.tensors)
        self._formats = {name: checked_format(model, name) for name in tensors}
        self._num_values = {name: info.num_values for name, info in tensors.items()}
        tensors.pop(ROPE_FACTORS, None)
        self._places = hugging_face_names(tensors, expert_names(model))
        self._paired_head_dim = paired_head_dim(model)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._places)

    @property
    def dtype(self) -> str:
        """That of most weights, or bfloat16: rounded ones have no more digits than it."""
        return _DTYPES.get(self._usual_format, "bfloat16")

    @property
    def rounded_to(self) -> str | None:
        """The format of most weights; None if it rounds no more than a float does."""
        return None if self._usual_format in _DTYPES else self._usual_format

    def dtype_of(self, name: str) -> str:
        return _DTYPES.get(self._formats[self._place(name).tensor].name, self.dtype)

    def header_bytes(self, path: Path) -> int:
        return next(part.header_bytes for part in self._model.parts if part.path == path)

    def file_of(self, name: str) -> Path:
        return self._model.part_of(self._place(name).tensor).path

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name).shape

    def read(self, name: str, index: tuple[slice, ...]) -> Tensor:
        place = self._place(name)
        rows: slice | Tensor = index[0]
        if self._paired_head_dim is not None and _ROTATED.fullmatch(place.tensor):
            rows = _places_in_pairs(place.shape[0], self._paired_head_dim)[rows]
        if place.shape[0] == 1:  # the one row may not be told apart in the file
            whole = read_rows(self._model, place.tensor, slice(None), place.expert)
            return whole.view(place.shape)[index]
        values = read_rows(self._model, place.tensor, rows, place.expert)
        return values[(slice(None), *index[1:])]

    @property
    def _usual_format(self) -> str:
        num_values: Counter[str] = Counter()
        for name, count in self._num_values.items():
            num_values[self._formats[name].name] += count
        [(usual, _)] = num_values.most_common(1)
        return usual

    def _place(self, name: str) -> Place:
        if name not in self._places:
            raise ModelLoadError(
                f"{self._model.path}: there is no tensor for what Hugging Face calls '{name}'."
            )
        return self._places[name]


def _places_in_pairs(num_rows: int, head_dim: int) -> Tensor:
    """Where Hugging Face's rows of queries or keys are in a file that has them in pairs.

    Two rows of a head turn together: i and head_dim / 2 + i there, 2i and 2i + 1 here.
    """
    places = torch.arange(num_rows).view(-1, head_dim // 2, 2)
    return places.transpose(1, 2).flatten()
