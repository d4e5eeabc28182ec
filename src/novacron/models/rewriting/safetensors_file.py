"""A safetensors file written tensor by tensor, which appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "U8": 1}


@dataclass(frozen=True)
class StoredTensor:
    """`dtype` as safetensors writes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_safetensors(
    path: Path, tensors: Sequence[StoredTensor], contents: Iterable[Tensor]
) -> None:
    """`contents` are taken one at a time, in the order of `tensors`."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        file.write(_header(tensors))
        for tensor, content in zip(tensors, contents, strict=True):
            octets = content.contiguous().flatten().view(torch.uint8)
            assert octets.numel() == tensor.num_bytes, tensor
            file.write(octets.numpy().data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def write_json(path: Path, content: object) -> None:
    """Whole or not at all, as well."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)


def _header(tensors: Sequence[StoredTensor]) -> bytes:
    """Where each tensor lies, padded to 8 bytes."""
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        end = start + tensor.num_bytes
        content[tensor.name] = {
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (start, end),
        }  # fmt: skip
        start = end
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
