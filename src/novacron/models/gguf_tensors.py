"""The tensors of a GGUF model under their own names: rows of them, turned into float32."""

from __future__ import annotations

import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.gguf_blocks import BlockFormat, find_format
from novacron.models.gguf_model import GGUFModel


def checked_format(model: GGUFModel, name: str) -> BlockFormat:
    """How a tensor is held. Raises ModelLoadError if that is not supported, or cannot be."""
    file = model.part_of(name)
    info = file.tensors[name]
    where = f"{file.path}: the tensor '{name}'"
    found = find_format(info.type_code, where)
    if info.num_values == 0 or info.shape[-1] % found.num_values:
        raise ModelLoadError(
            f"{where} has the shape {list(info.shape)}, which {found.name} cannot hold. The file "
            "is damaged."
        )
    if info.start + _num_bytes(info.num_values, found) > len(file.content):
        raise ModelLoadError(
            f"{where} reaches beyond the end of the file. The file is damaged, or its download "
            "incomplete."
        )
    return found


def read_rows(
    model: GGUFModel, name: str, rows: slice | Tensor, expert: int | None = None
) -> Tensor:
    """What is asked for along the first dimension, as a slice or as indices; of the others all.
    With `expert`, of that entry of the first dimension, as if it were a tensor of its own.

    Nothing else of a matrix is turned into float32. Raises ModelLoadError.
    """
    found, file = checked_format(model, name), model.part_of(name)
    info = file.tensors[name]
    content = torch.frombuffer(
        file.content,
        dtype=torch.uint8,
        offset=info.start,
        count=_num_bytes(info.num_values, found),
    )
    shape = info.shape
    if expert is not None:
        content, shape = content.view(shape[0], -1)[expert], shape[1:]
    if len(shape) == 1:
        return found.dequantize(content.view(-1, found.num_bytes)).flatten()[rows]
    chosen = content.view(shape[0], -1)[rows]
    values = found.dequantize(chosen.reshape(-1, found.num_bytes))
    return values.view(len(chosen), *shape[1:])


def _num_bytes(num_values: int, held_as: BlockFormat) -> int:
    return num_values // held_as.num_values * held_as.num_bytes
