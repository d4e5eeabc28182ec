"""The tensors that a checkpoint holds for one module, where its weight is packed into several."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.kernels.linear import Quantization, Rounded
from novacron.models.checkpoint import Checkpoint

FLOATS = ("float32", "bfloat16", "float16")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class StoredModule:
    """The tensors whose names are `name`, a dot, and what is called the part here."""

    checkpoint: Checkpoint
    name: str

    def tensor_name(self, part: str) -> str:
        return f"{self.name}.{part}"

    def has(self, part: str) -> bool:
        return self.tensor_name(part) in self.checkpoint.names

    def shape(self, part: str) -> Shape:
        return self.checkpoint.shape(self.tensor_name(part))

    def dtype(self, part: str) -> str:
        return self.checkpoint.dtype_of(self.tensor_name(part))

    def read(self, part: str) -> Tensor:
        """All of a part, backed by the file: what is not looked at is not read."""
        name = self.tensor_name(part)
        return self.checkpoint.read(name, (slice(None),) * len(self.checkpoint.shape(name)))

    def check(self, part: str, dtypes: Collection[str], *shapes: Shape) -> None:
        """Raises ModelLoadError if the part is missing, of another type, or of no such shape."""
        dtype, shape = self.dtype(part), self.shape(part)
        if dtype not in dtypes:
            raise self.error(part, f"is stored as {dtype}, not as {' or '.join(dtypes)}")
        if shape not in shapes:
            wanted = " or ".join(str(list(wanted)) for wanted in shapes)
            raise self.error(part, f"has the shape {list(shape)}, not {wanted}")

    def matrix_shape(self, part: str, *dtypes: str) -> tuple[int, int]:
        """The shape of a part that must be a matrix of one of these types."""
        shape = self.shape(part)
        self.check(part, dtypes, shape)
        if len(shape) != 2 or 0 in shape:
            raise self.error(part, f"has the shape {list(shape)}, which is no matrix")
        return shape[0], shape[1]

    def error(self, part: str, reason: str) -> ModelLoadError:
        name = self.tensor_name(part)
        return ModelLoadError(
            f"{self.checkpoint.file_of(name)}: the tensor '{name}' {reason}. The file is damaged, "
            "or the quantization_config in config.json describes other weights."
        )


class PackedMatrix(Protocol):
    """The weight of a module, as rows of its dense form.

    `parts` are those of the module's tensors that it is made of; `shape` is the dense one.
    """

    @property
    def module(self) -> StoredModule: ...
    @property
    def parts(self) -> Collection[str]: ...
    @property
    def shape(self) -> tuple[int, int]: ...

    def rows(self, first: int, last: int) -> Tensor:
        """Rows [first, last) in float32. Raises ModelLoadError for what only reading can show."""
        ...


@runtime_checkable
class RoundedMatrix(Protocol):
    """A PackedMatrix of a format whose numbers kernels can take as they are."""

    def rounded(self, first: int, last: int, quantization: Quantization) -> Rounded | None:
        """Rows [first, last), or None if they are stored in another form. Raises ModelLoadError."""
        ...


def modules_with(checkpoint: Checkpoint, parts: Iterable[str]) -> list[StoredModule]:
    """The modules that have at least one of these parts, in the order of their names."""
    endings = tuple(f".{part}" for part in parts)
    names = {
        name.removesuffix(ending)
        for name in checkpoint.names
        for ending in endings
        if name.endswith(ending)
    }
    return [StoredModule(checkpoint, name) for name in sorted(names)]
