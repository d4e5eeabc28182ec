"""Which kernels an engine uses."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from novacron.errors import ConfigError
from novacron.kernels.native.library import DATA_TYPES, NativeContext, NativeUnavailable
from novacron.kernels.native.table import native_kernels
from novacron.kernels.table import TORCH_KERNELS, Kernels

logger = logging.getLogger(__name__)


def choose_kernels(
    wanted: Literal["auto", "native", "torch"],
    device: torch.device,
    dtype: torch.dtype,
    num_threads: int,
) -> Kernels:
    """Native ones on CPU, where they are built and know the precision; else those of torch.

    Raises ConfigError if native ones are asked for and cannot be had. On CPU, says why if it is
    going to be slow.
    """
    if wanted == "torch" or (wanted == "auto" and device.type != "cpu"):
        return TORCH_KERNELS
    try:
        _check(device, dtype)
        return native_kernels(NativeContext(num_threads))
    except NativeUnavailable as reason:
        if wanted == "native":
            raise ConfigError(
                f"kernels is 'native', but {reason}. Set kernels to auto or torch."
            ) from reason
        logger.warning("Computing with PyTorch's own operators, which is slower: %s.", reason)
        return TORCH_KERNELS


def _check(device: torch.device, dtype: torch.dtype) -> None:
    if device.type != "cpu":
        raise NativeUnavailable(f"they are for the CPU, and the device is {device.type}")
    if dtype not in DATA_TYPES:
        name = str(dtype).removeprefix("torch.")
        raise NativeUnavailable(f"they have no {name}, only float32 and bfloat16")
