"""The paged KV cache as tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from novacron.config.cache import CacheConfig
from novacron.config.kv_layers import KVDtype, KVPrecision
from novacron.kernels.kv_format import LayerFormat, choose_kv_formats
from novacron.kernels.metadata import KVLayer
from novacron.kernels.pages import populate_pages, zero_pages
from novacron.kernels.shared_pages import SharedPages
from novacron.models.decoder_config import DecoderConfig
from novacron.models.layers.attention import local_kv_heads
from novacron.parallel.groups import ParallelGroup


class KVTensors:
    """Keys and values of all layers, zero at first. `layers` are what this rank has of them.

    All that a block holds stands together, [layers][keys, values][heads], also where ranks share
    the heads out: memory is touched in the order in which blocks are first used, a block can be
    moved as one piece, and it is the same piece however many ranks computed it. Where two ranks
    have the same head, both write the same there.

    A block whose request computed values that are not finite is marked, and zeroed before another
    request writes to it: what a row does not use of its last block is masked, but NaN shows through
    masks.
    """

    def __init__(
        self,
        config: DecoderConfig,
        group: ParallelGroup,
        *,
        num_blocks: int,
        block_size: int,
        formats: Sequence[LayerFormat],
        device: torch.device,
        memory: torch.Tensor | None = None,
    ) -> None:
        """`memory` is what ranks share, as `shape_of_blocks` says; without it, memory of its own.
        A rank writes to its own heads only, but what moves or zeroes a block to all of them."""
        num_heads, own = config.num_kv_heads, local_kv_heads(config.num_kv_heads, group)
        self.num_blocks, self._block_size = num_blocks, block_size
        self.num_heads = num_heads  # of a block: those of all ranks that share it
        assert len(formats) == len(config.layers)
        sizes = _part_bytes(config, formats, block_size)
        shape = (num_blocks, sum(sizes))
        self._blocks = _zeros(shape, device) if memory is None else memory
        assert self._blocks.shape == shape
        self._sizes = sizes
        parts = (
            part.view(num_blocks, num_heads, -1)[:, own].transpose(0, 1)
            for part in torch.split(self._blocks, sizes, 1)
        )
        self.layers = tuple(
            KVLayer(next(parts), next(parts), layer, block_size) for layer in formats
        )
        self._shared = None if memory is None else SharedPages(memory)
        self._host_blocks = self._blocks.numpy() if device.type == "cpu" else None
        self._tainted: set[int] = set()

    def populate(self, num_bytes: int) -> None:
        """Have memory ready for the blocks that are used first, on CPU. Does not wait."""
        if self._shared is not None:
            self._shared.want(num_bytes)
        elif self._host_blocks is not None:
            populate_pages(self._blocks, num_bytes)

    @property
    def formats(self) -> tuple[LayerFormat, ...]:
        return tuple(layer.format for layer in self.layers)

    @property
    def num_bytes(self) -> int:
        return self._blocks.nbytes

    @property
    def block_size(self) -> int:
        return self._block_size

    @property
    def block_bytes(self) -> int:
        return self._blocks.shape[1]

    @property
    def host_blocks(self) -> NDArray[np.uint8] | None:
        """[blocks][block_bytes], on CPU. Who has filled some calls `see_filled`."""
        return self._host_blocks

    @property
    def parts_of_layers(self) -> list[torch.Tensor]:
        """What all blocks hold of each layer: views, [blocks, bytes]."""
        of_layers = [sum(pair) for pair in zip(self._sizes[::2], self._sizes[1::2], strict=True)]
        return list(torch.split(self._blocks, of_layers, 1))

    @property
    def whole_blocks(self) -> torch.Tensor:
        """All that blocks hold, [blocks, bytes]. Who has filled some calls `see_filled`."""
        return self._blocks

    def read_block(self, block_id: int, into: NDArray[np.uint8]) -> None:
        """Copy all that a block holds, from any thread."""
        torch.from_numpy(into).copy_(self._blocks[block_id])

    def write_block(self, block_id: int, data: NDArray[np.uint8]) -> None:
        """Replace all that a block holds, from any thread. Nobody may read it meanwhile."""
        self._blocks[block_id].copy_(torch.from_numpy(data))
        self.see_filled((block_id,))

    def see_filled(self, block_ids: Iterable[int]) -> None:
        """These of the `host_blocks` hold values again that are finite."""
        self._tainted.difference_update(block_ids)

    def taint(self, block_ids: Iterable[int]) -> None:
        """Remember that these blocks may hold NaN."""
        self._tainted.update(block_ids)

    def clean(self, block_ids: Collection[int]) -> None:
        """Zero those of the blocks, about to be written by a request, that are tainted."""
        if self._shared is not None and block_ids:  # lower numbers are used first
            self._shared.want((max(block_ids) + 1) * self.block_bytes)
        if not self._tainted:
            return
        found = self._tainted.intersection(block_ids)
        self._tainted -= found
        for block in found:
            self._blocks[block].zero_()


def shape_of_blocks(
    config: DecoderConfig, formats: Sequence[LayerFormat], *, num_blocks: int, block_size: int
) -> tuple[int, int]:
    """Of the bytes of so many blocks, all heads and layers together."""
    return num_blocks, sum(_part_bytes(config, formats, block_size))


def _part_bytes(
    config: DecoderConfig, formats: Sequence[LayerFormat], block_size: int
) -> list[int]:
    """Of the keys of each layer in a block, and of its values."""
    return [
        config.num_kv_heads * kind.block_bytes(block_size, config.head_dim)
        for layer in formats
        for kind in layer
    ]


def plain_formats(config: DecoderConfig, dtype: torch.dtype) -> tuple[LayerFormat, ...]:
    """All layers in the model's own precision."""
    own = KVPrecision(name_of(dtype), name_of(dtype))
    return choose_kv_formats(CacheConfig(), len(config.layers), own)


def name_of(dtype: torch.dtype) -> KVDtype:
    return cast(KVDtype, str(dtype).removeprefix("torch."))


def _zeros(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Zero bytes that, on CPU, take memory only as they are written to."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    return zero_pages(shape, torch.uint8)
