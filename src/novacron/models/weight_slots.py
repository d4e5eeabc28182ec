"""Where each tensor of a checkpoint goes: the contract between layers and loading.

A layer yields a slot for each tensor it wants, named as in a Llama checkpoint. A family whose files
use other names or pack tensors together maps each name to a Source. loading.py does the copying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from novacron.models.decoder_config import DecoderConfig
from novacron.models.layers.matrix import Matrix


@dataclass(frozen=True)
class WeightSlot:
    """`target` takes the part `index` of the tensor `name`, whose whole shape is `shape`.

    `offset` is added after the copy, in the precision of the target. `matrix` is the one that the
    target is a part of, to be finished when all its slots are filled.
    """

    name: str
    target: Tensor
    shape: tuple[int, ...]
    index: tuple[slice, ...]
    offset: float = 0.0
    matrix: Matrix | None = None


@dataclass(frozen=True)
class Source:
    """The tensor of a checkpoint that holds a slot's tensor, as rows from `first_row` on.

    `num_rows` is the length of the first dimension of the whole; None: that of the slot.
    """

    name: str
    first_row: int = 0
    num_rows: int | None = None


def index_in_source(slot: WeightSlot, source: Source) -> tuple[slice, ...]:
    """The part of the source's tensor that the slot takes."""
    if source.num_rows is None:
        return slot.index
    rows = range(slot.shape[0])[slot.index[0]]
    return (slice(source.first_row + rows.start, source.first_row + rows.stop), *slot.index[1:])


WeightMap = Callable[[str, DecoderConfig], Source]


def same_names(name: str, config: DecoderConfig) -> Source:
    """The weight map of families that use Llama's names."""
    return Source(name)
