"""The container of a GGUF file: its metadata, and where each tensor lies. No torch.

The layout, little-endian throughout, with strings as a length of 8 bytes and UTF-8:

    4 bytes   "GGUF"
    u32       version; 2 and 3 look the same, 1 had shorter numbers and is refused
    u64       number of tensors
    u64       number of metadata entries
    entries   key (a string), u32 type of the value, the value; an array is u32 type, u64 length,
              its elements one after the other
    tensors   name (a string), u32 number of dimensions, u64 for each of them, the one along which
              values are neighbours first; u32 type, u64 place from the start of the contents
    contents  from the next multiple of the alignment on (general.alignment, else 32)

Whatever a file holds, reading its header takes memory in proportion to the header and at most
seconds: every length is compared with what is left of the file, and counts have bounds.

Source: the specification of the format in the ggml project (docs/gguf.md, MIT).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novacron.errors import ModelLoadError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_MAX_TENSORS = 2**17
_MAX_ENTRIES = 2**23  # of metadata, elements of arrays included: several times the largest known

_STRING, _ARRAY = 8, 9
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_LENGTH = struct.Struct("<Q")

_DAMAGED = "the file is damaged"
_ENDS_EARLY = "it ends within its header; the file is damaged or its download incomplete"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as the header describes it. `shape` is in the order of torch: neighbouring values
    belong to its last dimension. `start` counts bytes from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    type_code: int
    start: int

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


class GGUFFile:
    """One file, mapped. Raises ModelLoadError that names the file and the reason.

    `metadata` holds numbers, truth values, texts and lists of one of these. `header_bytes` is where
    the contents of the tensors begin. That these lie within the file is not checked here: their
    types decide how long they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                # Copied on write, because torch warns of memory that it could not write to.
                self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError as error:
            raise ModelLoadError(f"There is no file {path}.") from error
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise ModelLoadError(f"{path} cannot be read: {error}.") from error
        try:
            self._read_header()
        except _Unreadable as error:
            raise ModelLoadError(f"{path}: {error}.") from error

    def _read_header(self) -> None:
        reader = _Reader(self.content)
        if reader.take(4) != _MAGIC:
            raise _Unreadable(
                "this is no GGUF file. Give one of these, or the folder of a Hugging Face model"
            )
        _check_version(reader.number(4))
        num_tensors, num_entries = reader.number(8), reader.number(8)
        reader.count(num_entries)
        if num_tensors > _MAX_TENSORS:
            raise _Unreadable(f"it claims to hold {num_tensors} tensors; {_DAMAGED}")
        self.metadata: dict[str, Any] = {}
        for _ in range(num_entries):
            key = reader.text()
            if key in self.metadata:
                raise _Unreadable(f"the metadata key '{key}' occurs twice; {_DAMAGED}")
            self.metadata[key] = reader.value(key)
        infos = [_tensor_info(reader) for _ in range(num_tensors)]
        alignment = _alignment(self.metadata)
        self.header_bytes = -(-reader.place // alignment) * alignment
        self.tensors = {
            name: TensorInfo(name, shape, code, self.header_bytes + place)
            for name, shape, code, place in infos
            if place % alignment == 0
        }
        if len(self.tensors) < num_tensors:
            raise _Unreadable(
                f"two of its tensors have the same name, or a tensor is not aligned; {_DAMAGED}"
            )


class _Unreadable(Exception):
    """Why a file cannot be read, as the end of a sentence about it."""


class _Reader:
    """Takes one thing after the other from the beginning of a file, and never what is not there."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._size = len(content)
        self._num_counted = 0
        self.place = 0

    def take(self, num_bytes: int) -> bytes:
        start, end = self.place, self.place + num_bytes
        if end > self._size:
            raise _Unreadable(_ENDS_EARLY)
        self.place = end
        return self._content[start:end]

    def number(self, num_bytes: int) -> int:
        return int.from_bytes(self.take(num_bytes), "little")

    def count(self, num: int) -> None:
        """Entries that are about to be read one by one; bounds the time that all of them take."""
        self._num_counted += num
        if self._num_counted > _MAX_ENTRIES:
            raise _Unreadable(f"its metadata claim to have {self._num_counted} entries; {_DAMAGED}")

    def text(self) -> str:
        length = self.number(8)
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise _Unreadable(f"its header holds a text that is not UTF-8; {_DAMAGED}") from error

    def value(self, key: str) -> Any:
        type_code = self.number(4)
        if type_code == _STRING:
            return self.text()
        if type_code != _ARRAY:
            return self._numbers(type_code, 1, key)[0]
        type_code, length = self.number(4), self.number(8)
        self.count(length)
        if type_code == _STRING:
            return self._texts(length)
        return self._numbers(type_code, length, key)

    def _numbers(self, type_code: int, length: int, key: str) -> list[Any]:
        if type_code not in _NUMBERS:
            raise _Unreadable(f"the metadata key '{key}' has the unknown type {type_code}")
        layout = struct.Struct(f"<{length}{_NUMBERS[type_code]}")
        return list(layout.unpack(self.take(layout.size)))

    def _texts(self, length: int) -> list[str]:
        """As `text` so many times, and several times faster: vocabularies have 10**5 of them."""
        content, size, read_length = self._content, self._size, _LENGTH.unpack_from
        texts: list[str] = []
        place = self.place
        try:
            for _ in range(length):
                [num_bytes] = read_length(content, place)
                place += 8 + num_bytes
                if place > size:
                    raise _Unreadable(_ENDS_EARLY)
                texts.append(content[place - num_bytes : place].decode())
        except struct.error:
            raise _Unreadable(_ENDS_EARLY) from None
        except UnicodeDecodeError as error:
            raise _Unreadable(f"its header holds a text that is not UTF-8; {_DAMAGED}") from error
        self.place = place
        return texts


def _check_version(version: int) -> None:
    if version in _VERSIONS:
        return
    if version & 0xFFFF == 0:
        raise _Unreadable(
            "it is a big-endian file; only little-endian ones are read. Convert it with "
            "gguf-convert-endian, of the gguf package"
        )
    raise _Unreadable(
        f"it has version {version} of the format; versions 2 and 3 are read. Make the file anew "
        "with a current llama.cpp"
    )


def _tensor_info(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and place among the contents."""
    name = reader.text()
    num_dimensions = reader.number(4)
    if not 0 < num_dimensions <= _MAX_DIMENSIONS:
        raise _Unreadable(
            f"the tensor '{name}' has {num_dimensions} dimensions, not 1 to {_MAX_DIMENSIONS}; "
            f"{_DAMAGED}"
        )
    shape = tuple(reader.number(8) for _ in range(num_dimensions))[::-1]
    return name, shape, reader.number(4), reader.number(8)


def _alignment(metadata: Mapping[str, Any]) -> int:
    """Of contents, in bytes. Being a multiple of 8, it lets every format be read in place."""
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
        raise _Unreadable(f"general.alignment is {alignment!r}, no multiple of 8; {_DAMAGED}")
    return alignment
