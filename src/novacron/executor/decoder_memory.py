"""A decoder's memory: asked for before it is taken."""

from __future__ import annotations

from pathlib import Path

import torch

from novacron.errors import ModelLoadError
from novacron.kernels.linear import Quantization
from novacron.kernels.table import Kernels
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.decoder_config import DecoderConfig
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE
from novacron.runner.kv_tensors import free_memory_bytes


def allocate_decoder(
    model_path: Path,
    config: DecoderConfig,
    kernels: Kernels,
    quantization: Quantization | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Decoder:
    """The decoder without weights; refused at once if the weights cannot fit."""

    def build(where: torch.device) -> Decoder:
        return build_decoder(
            config,
            SINGLE,
            LocalCommunicator(),
            kernels,
            quantization=quantization,
            dtype=dtype,
            device=where,
        )

    needed, free = build(torch.device("meta")).weight_bytes, free_memory_bytes(device)
    if needed > free:
        precision = quantization or str(dtype).removeprefix("torch.")
        raise ModelLoadError(
            f"{model_path}: the weights take {needed / 2**30:.1f} GiB in {precision}, but {device} "
            f"has {free / 2**30:.1f} GiB free."
        )
    return build(device)
