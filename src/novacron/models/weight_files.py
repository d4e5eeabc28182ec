"""What loading needs of the files that hold a model's weights, whatever their format."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from novacron.kernels.linear import Quantization, Rounded


class WeightFiles(Protocol):
    """Tensors by their names in a Hugging Face checkpoint. All of it raises ModelLoadError."""

    @property
    def settings(self) -> Path | None:
        """The file beside `files` that says what the weights mean, if it is not one of them."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def names(self) -> frozenset[str]: ...

    @property
    def dtype(self) -> str:
        """The precision that computing should have, as far as the weights are concerned."""

    def header_bytes(self, path: Path) -> int:
        """How long the part of a file is that describes the rest: names, types, shapes, places."""

    def dtype_of(self, name: str) -> str:
        """The precision of a tensor. One that is rounded in the files has `dtype`, if nobody says
        otherwise."""

    def file_of(self, name: str) -> Path: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str, index: tuple[slice, ...]) -> Tensor:
        """A part of a tensor: one slice for each dimension, none of them with a step."""


@runtime_checkable
class RoundedFiles(Protocol):
    """Weight files that hold some matrices just as kernels would round them."""

    def rounded(self, name: str, rows: slice, quantization: Quantization) -> Rounded | None:
        """Some rows of a matrix; None unless they are stored in exactly this form, or in one that
        means the same with more scales. Raises ModelLoadError."""
        ...
