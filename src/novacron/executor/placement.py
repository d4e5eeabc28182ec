"""Which device, precision and number of threads an engine process uses."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import psutil
import torch

from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.models.rewriting.recipe import Recipe
from novacron.models.weight_precision import WeightPrecision
from novacron.quantization.precision_map import PrecisionMap

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_MMAP_THRESHOLD_BYTES = 32 * 2**20  # the largest that glibc takes
_TRIM_THRESHOLD_BYTES = 2**30

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def choose_device(config: ModelConfig) -> torch.device:
    """cuda if asked for, or if there is one and nothing else was asked for."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError(
            "device is 'cuda', but PyTorch finds no CUDA device. "
            "Install a CUDA build of torch and a driver, or set device to cpu."
        )
    if config.device == "cpu" or not has_cuda:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def choose_dtype(config: ModelConfig, checkpoint_dtype: str, device: torch.device) -> torch.dtype:
    """The precision asked for; "auto" is that of the checkpoint where the device is fast at it.

    A GPU is fast at all; a CPU at bfloat16 only with instructions for it, and at float16 hardly
    ever. Measured on one Zen 5 core, a 2048 x 2048 product takes, in float32 and in bfloat16: 254
    and 238 us for 1 row, 1,670 and 335 us for 8, 2,950 and 730 us for 32.
    """
    wanted = checkpoint_dtype if config.dtype == "auto" else config.dtype
    if wanted not in ("float32", "bfloat16", "float16"):
        wanted = "float32"
    if config.dtype == "auto" and device.type == "cpu":
        wanted = "bfloat16" if wanted == "bfloat16" and _cpu_is_fast_at_bf16() else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def choose_precision(config: ModelConfig, recipe: Recipe | None = None) -> WeightPrecision:
    """As asked for; "auto" is as a folder of ours was rounded, and not at all for others. Raises
    ConfigError."""
    base: str = config.quantization
    entries = config.quantization_layers
    group_size = config.quantization_group_size
    if base == "auto":
        base = "none"
        if recipe is not None:
            base, entries = recipe.quantization, (*recipe.layers, *entries)
            group_size = recipe.group_size
    return WeightPrecision(PrecisionMap.parse(base, entries), group_size)


def choose_num_threads(config: ModelConfig) -> int:
    """The number asked for, or one per physical core that this process may use."""
    if config.num_threads:
        return config.num_threads
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    usable = len(os.sched_getaffinity(0))
    cores = max(1, usable * physical // logical)
    return max(1, min(cores, _cpu_quota(_CPU_QUOTA)))


def threads_of_replica(config: ModelConfig) -> int:
    """The share of one replica, which competes with the others for cores if there are fewer."""
    return max(1, choose_num_threads(config) // config.data_parallel_size)


def keep_freed_memory() -> None:
    """Have glibc keep memory that tensors free, for those of the next layer, step after step.

    By default it goes back to the system and costs a page fault per 4 KiB when taken again. With 64
    rows in a step this more than halves its time (62 to 25 ms, the bundled model on one core). No
    effect under another allocator.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)


def _cpu_is_fast_at_bf16() -> bool:
    features = torch.cpu.get_capabilities()
    return any(bool(features.get(name)) for name in _BF16_FEATURES)


def _cpu_quota(path: Path) -> int:
    """Whole cores that a container may use; without a limit, no bound."""
    try:
        quota_us, period_us = path.read_text().split()
        return max(1, int(quota_us) // int(period_us))
    except (OSError, ValueError):  # another kind of cgroup, or "max"
        return 2**31
