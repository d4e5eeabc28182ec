"""The safetensors files of a model folder: which tensors there are, and slices of them.

Files are memory-mapped; only what is asked for is read. Pickle files are refused, because loading
one runs whatever code it contains.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from novacron.errors import ModelLoadError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U8": "uint8",
}


class _Slice(Protocol):
    def get_shape(self) -> list[int]: ...
    def get_dtype(self) -> str: ...
    def __getitem__(self, index: tuple[slice, ...]) -> Tensor: ...


class _OpenFile(Protocol):
    """What we use of safetensors.safe_open, which has no types."""

    def keys(self) -> list[str]: ...
    def get_tensor(self, name: str) -> Tensor: ...
    def get_slice(self, name: str) -> _Slice: ...


class _Stored(NamedTuple):
    file: Path
    dtype: str  # as torch calls it, or as the file does where that is none we read
    shape: tuple[int, ...]


class Checkpoint:
    """The tensors of one model folder. Implements WeightFiles. Raises ModelLoadError that names the
    file and the reason.

    Only the file that was read last stays open: pages of a file that is mapped count as memory of
    this process, and loading goes through the files one after the other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "config.json"
        self.files = _find_files(folder)
        self._stored: dict[str, _Stored] = {}
        for path in self.files:
            with _explained(path):
                self._open = (path, _open(path))
                self._stored.update(_headers(*self._open))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._stored)

    @property
    def dtype(self) -> str:
        """The precision of the first tensor."""
        return next((stored.dtype for stored in self._stored.values()), "")

    def header_bytes(self, path: Path) -> int:
        with path.open("rb") as file:
            return 8 + int.from_bytes(file.read(8), "little")

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._find(name).file

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def dtype_of(self, name: str) -> str:
        return self._find(name).dtype

    def read(self, name: str, index: tuple[slice, ...]) -> Tensor:
        """A slice of a tensor, backed by the file where it can be."""
        path = self.file_of(name)
        with _explained(path):
            if self._open[0] != path:
                self._open = (path, _open(path))
            file = self._open[1]
            if all(part == slice(None) for part in index):
                return file.get_tensor(name)
            return file.get_slice(name)[index]

    def _find(self, name: str) -> _Stored:
        if name not in self._stored:
            raise ModelLoadError(
                f"{self.folder}: the tensor '{name}' is missing from "
                f"{', '.join(path.name for path in self.files)}."
            )
        return self._stored[name]


def _open(path: Path) -> _OpenFile:
    return cast(_OpenFile, safe_open(path, framework="pt"))


def _headers(path: Path, file: _OpenFile) -> Iterator[tuple[str, _Stored]]:
    for name in file.keys():  # noqa: SIM118 - it is no mapping
        part = file.get_slice(name)
        code = part.get_dtype()
        yield name, _Stored(path, _DTYPES.get(code, code), tuple(part.get_shape()))


def _find_files(folder: Path) -> tuple[Path, ...]:
    index = folder / _INDEX
    if index.is_file():
        return _read_index(index)
    if (folder / _SINGLE).is_file():
        return (folder / _SINGLE,)
    files = tuple(sorted(folder.glob("*.safetensors")))
    if files:
        return files
    pickled = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind))
    if pickled:
        raise ModelLoadError(
            f"{folder} holds its weights in pickle files ({', '.join(pickled)}), which can run any "
            "code when loaded and are refused. Convert them to safetensors."
        )
    raise ModelLoadError(f"{folder}: no weights found; expected {_SINGLE} or {_INDEX}.")


def _read_index(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        files = tuple(index.parent / name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{index} cannot be read as an index of shards: {error!r}.") from error
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelLoadError(
            f"{index} names {len(files)} files, of which are missing: {', '.join(missing)}. "
            "The download may be incomplete."
        )
    return files


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what safetensors says of a damaged file into a ModelLoadError."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(
            f"{path} cannot be read ({error}). The file may be damaged or its download incomplete."
        ) from error
