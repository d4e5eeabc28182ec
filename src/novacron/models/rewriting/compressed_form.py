"""Rounded matrices as the compressed-tensors library stores them, which other servers read, too.

The formats are described in models/quantized/compressed_tensors.py. Whole numbers are packed,
with a scale for each group; e4m3 is float-quantized, with one for each output. All are symmetric.

Shapes: O outputs, I inputs, G groups, S inputs in a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from novacron.kernels.linear import Quantization, Rounded
from novacron.models.rewriting.safetensors_file import StoredTensor

_PACKED, _FLOAT, _SEVERAL = "pack-quantized", "float-quantized", "mixed-precision"
_BITS_PER_WORD = 32


def stored_parts(
    module: str, shape: tuple[int, int], quantization: Quantization
) -> tuple[StoredTensor, ...]:
    """What `compress` makes of a module's weight. Inputs of whole numbers must be whole groups."""
    outputs, inputs = shape
    if quantization.is_float:
        return (
            StoredTensor(f"{module}.weight", "F8_E4M3", shape),
            StoredTensor(f"{module}.weight_scale", "F32", (outputs, 1)),
        )
    words = inputs * quantization.bits // _BITS_PER_WORD
    groups = inputs // quantization.group_size
    return (
        StoredTensor(f"{module}.weight_packed", "I32", (outputs, words)),
        StoredTensor(f"{module}.weight_scale", "BF16", (outputs, groups)),
        StoredTensor(f"{module}.weight_shape", "I64", (2,)),
    )


def can_hold(rounded: Rounded, quantization: Quantization) -> bool:
    """Floats have one scale for an output, and not one for each group."""
    scales_OG = rounded.scales_OG
    return not quantization.is_float or torch.equal(
        scales_OG[:, :1].expand_as(scales_OG), scales_OG
    )


def compress(
    rounded: Rounded, shape: tuple[int, int], quantization: Quantization
) -> tuple[Tensor, ...]:
    """The tensors of `stored_parts`, in that order."""
    if quantization.is_float:
        assert can_hold(rounded, quantization)
        return rounded.values_OGS.flatten(1)[:, : shape[1]], rounded.scales_OG[:, :1]
    codes_OI = rounded.values_OGS.flatten(1)
    if quantization.bits == 8:
        octets = codes_OI.view(torch.uint8) ^ 0x80  # the same as + 128
    else:
        unsigned = (codes_OI + 8).view(torch.uint8)
        octets = unsigned[:, ::2] | (unsigned[:, 1::2] << 4)
    words = octets.contiguous().view(torch.int32)
    return words, rounded.scales_OG.contiguous(), torch.tensor(codes_OI.shape)


def quantization_config(
    modules: Mapping[Quantization, Sequence[str]], ignored: Sequence[str]
) -> dict[str, Any]:
    """The section of config.json. `modules` are named in full: no pattern could match others."""
    formats = {_FLOAT if quantization.is_float else _PACKED for quantization in modules}
    has_several = len(formats) > 1
    return {
        "quant_method": "compressed-tensors",
        "format": _SEVERAL if has_several else formats.pop(),
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{number}": {
                "targets": list(names),
                "weights": _weights(quantization),
                "input_activations": None,
                "output_activations": None,
            }
            | ({"format": _FLOAT if quantization.is_float else _PACKED} if has_several else {})
            for number, (quantization, names) in enumerate(modules.items())
        },
        "ignore": list(ignored),
        "kv_cache_scheme": None,
    }


def _weights(quantization: Quantization) -> dict[str, Any]:
    if quantization.is_float:
        return {
            "type": "float",
            "num_bits": 8,
            "symmetric": True,
            "strategy": "channel",
            "dynamic": False,
        }
    return {
        "type": "int",
        "num_bits": quantization.bits,
        "symmetric": True,
        "strategy": "group",
        "group_size": quantization.group_size,
        "dynamic": False,
    }
