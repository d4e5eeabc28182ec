"""The paged KV cache as tensors: how many blocks fit on the device, and their allocation."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import psutil
import torch

from novacron.config.engine import CacheConfig, SchedulerConfig
from novacron.config.kv_layers import KVDtype
from novacron.errors import ConfigError
from novacron.kernels.kv_format import KVFormat, choose_kv_formats
from novacron.kernels.metadata import KVLayer
from novacron.models.decoder_config import DecoderConfig
from novacron.models.layers.attention import num_local_kv_heads
from novacron.parallel.groups import ParallelGroup

_COPIES_OF_LOGITS = 6  # that sampling makes: edited, weights (64 bit), their running sum

_CGROUP = Path("/sys/fs/cgroup")


class KVTensors:
    """Keys and values of all layers of this rank, zero at first.

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
        formats: Sequence[KVFormat],
        device: torch.device,
    ) -> None:
        heads = num_local_kv_heads(config.num_kv_heads, group)
        self.num_blocks, self.block_size = num_blocks, block_size

        def layer(kind: KVFormat) -> KVLayer:
            shape = (heads, num_blocks, kind.block_bytes(block_size, config.head_dim))
            return KVLayer(_zeros(shape, device), _zeros(shape, device), kind, block_size)

        assert len(formats) == len(config.layers)
        self.layers = tuple(map(layer, formats))
        self._tainted: set[int] = set()

    @property
    def formats(self) -> tuple[KVFormat, ...]:
        return tuple(layer.format for layer in self.layers)

    @property
    def num_bytes(self) -> int:
        return sum(layer.key.nbytes + layer.value.nbytes for layer in self.layers)

    def taint(self, block_ids: Iterable[int]) -> None:
        """Remember that these blocks may hold NaN."""
        self._tainted.update(block_ids)

    def clean(self, block_ids: Iterable[int]) -> None:
        """Zero those of the blocks, about to be written by a request, that are tainted."""
        if not self._tainted:
            return
        found = self._tainted.intersection(block_ids)
        self._tainted -= found
        for block in found:
            for layer in self.layers:
                layer.key[:, block].zero_()
                layer.value[:, block].zero_()


def plain_formats(config: DecoderConfig, dtype: torch.dtype) -> tuple[KVFormat, ...]:
    """All layers in the model's own precision."""
    return choose_kv_formats(CacheConfig(), len(config.layers), name_of(dtype))


def name_of(dtype: torch.dtype) -> KVDtype:
    return cast(KVDtype, str(dtype).removeprefix("torch."))


def block_bytes(
    config: DecoderConfig, group: ParallelGroup, block_size: int, formats: Sequence[KVFormat]
) -> int:
    """Bytes that one block takes on this rank, all layers together."""
    heads = num_local_kv_heads(config.num_kv_heads, group)
    return 2 * heads * sum(kind.block_bytes(block_size, config.head_dim) for kind in formats)


def num_blocks_to_allocate(
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    *,
    bytes_per_block: int,
    max_model_len: int,
    spare_bytes: int,
) -> int:
    """As many blocks as the memory holds, but no more than requests at their longest can use."""
    budget = spare_bytes if cache.kv_cache_memory is None else cache.kv_cache_memory
    fitting = budget // bytes_per_block
    usable = scheduler.max_num_seqs * -(-max_model_len // cache.block_size)
    if fitting < 1:
        raise ConfigError(
            f"The KV cache may use {budget} bytes, but one block takes {bytes_per_block}. "
            "Raise kv_cache_memory or the memory utilization, or free some memory."
        )
    return min(fitting, usable)


def activation_bytes(
    config: DecoderConfig, group: ParallelGroup, scheduler: SchedulerConfig, dtype: torch.dtype
) -> int:
    """About what the largest step needs beside weights and cache; rather too much."""
    widths = (
        6 * config.hidden_size
        + (3 * config.ffn_size + 4 * config.num_heads * config.head_dim) // group.size
    )
    hidden = scheduler.max_num_batched_tokens * widths * dtype.itemsize
    logits = scheduler.max_num_seqs * config.vocab_size * 4 * _COPIES_OF_LOGITS
    return hidden + logits


def free_memory_bytes(device: torch.device) -> int:
    """What is free on the device, within the limit of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, _free_in_cgroup_bytes(_CGROUP))


def spare_memory_bytes(cache: CacheConfig, device: torch.device, *, activation_bytes: int) -> int:
    """What the KV cache may take of the device's memory, the weights being loaded already."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
        return max(0, int(total * cache.gpu_memory_utilization) - used - activation_bytes)
    free = free_memory_bytes(device)
    return max(0, int(free * cache.cpu_memory_utilization) - activation_bytes)


def _free_in_cgroup_bytes(cgroup: Path) -> int:
    """What a container's memory limit leaves, file pages that can be dropped counted as free;
    without a limit, no bound."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(
            line.split() for line in (cgroup / "memory.stat").read_text().splitlines()
        )
        return max(0, limit - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):  # another kind of cgroup, or "max"
        return 2**63


def _zeros(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Zero bytes that, on CPU, take memory only page by page as they are written to."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    pages = mmap.mmap(-1, math.prod(shape))
    return torch.frombuffer(pages, dtype=torch.uint8).view(shape)
