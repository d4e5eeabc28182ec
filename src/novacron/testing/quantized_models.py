"""Checkpoints in the formats of quantised weights, packed here from the definitions of the formats.

Nothing of the reading side is used, so that a test of it compares two accounts of a format. Each
pack function rounds a weight [out, in] in the plainest way and gives the tensors of its module by
part, with the weight that they mean.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_LARGEST_FP8 = 448.0


@dataclass(frozen=True)
class Packed:
    """`tensors` by their part of the module's name; `weight` is what they mean, in float32."""

    tensors: Mapping[str, Tensor]
    weight: Tensor


@dataclass(frozen=True)
class Format:
    """A way to pack, and the quantization_config that tells of it."""

    config: Mapping[str, Any]
    pack: Callable[[Tensor], Packed]


def words_of(numbers: Tensor, bits: int) -> Tensor:
    """int32 words of the unsigned numbers along the last dimension, the first in the lowest bits;
    the last word is filled up with zeros."""
    per_word = 32 // bits
    missing = -numbers.shape[-1] % per_word
    numbers = torch.nn.functional.pad(numbers.long(), (0, missing))
    words = torch.zeros(*numbers.shape[:-1], numbers.shape[-1] // per_word, dtype=torch.int64)
    for place in range(per_word):
        words += numbers[..., place::per_word] << (bits * place)
    return torch.where(words < 2**31, words, words - 2**32).to(torch.int32)


def spread(grid: Tensor, block: tuple[int, int], shape: tuple[int, ...]) -> Tensor:
    """A value for each block of a matrix as one for each of its elements."""
    tall = grid.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return tall[: shape[0], : shape[1]]


def block_extremes(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The least and the greatest element of each block."""
    grid = [-(-length // size) for length, size in zip(weight.shape, block, strict=True)]
    low, high = torch.empty(grid), torch.empty(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            part = weight[row * block[0] :, column * block[1] :][: block[0], : block[1]]
            low[row, column], high[row, column] = part.min(), part.max()
    return low, high


def _fp8_and_scales(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    low, high = block_extremes(weight, block)
    scales = torch.maximum(-low, high).clamp(min=1e-6) / _LARGEST_FP8
    spread_scales = spread(scales, block, weight.shape)
    codes = (weight / spread_scales).to(torch.float8_e4m3fn)
    return codes, scales, codes.float() * spread_scales


def fp8_tiles(weight: Tensor, tile: tuple[int, int]) -> Packed:
    codes, scales, meant = _fp8_and_scales(weight, tile)
    return Packed({"weight": codes, "weight_scale_inv": scales}, meant)


def fp8_whole(weight: Tensor) -> Packed:
    codes, scales, meant = _fp8_and_scales(weight, (weight.shape[0], weight.shape[1]))
    parts = {"weight": codes, "weight_scale": scales.squeeze(), "input_scale": torch.tensor(0.1)}
    return Packed(parts, meant)


def fp8_rows(weight: Tensor) -> Packed:
    codes, scales, meant = _fp8_and_scales(weight, (1, weight.shape[1]))
    return Packed({"weight": codes, "weight_scale": scales}, meant)


def _whole_numbers(
    weight: Tensor, bits: int, block: tuple[int, int], *, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unsigned codes and zero points, scales in float16, and the weight that they mean. The scales
    and zero points are a grid of blocks."""
    low, high = block_extremes(weight, block)
    largest = 2**bits - 1
    if symmetric:
        scales = (torch.maximum(-low, high) / (largest // 2)).clamp(min=1e-4).half()
        zeros = torch.full_like(scales, 2 ** (bits - 1))
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scales = ((high - low) / largest).clamp(min=1e-4).half()
        zeros = (-low / scales.float()).round().clamp(0, largest)
    spread_scales = spread(scales.float(), block, weight.shape)
    spread_zeros = spread(zeros.float(), block, weight.shape)
    codes = (weight / spread_scales + spread_zeros).round().clamp(0, largest)
    return codes, zeros, scales, (codes - spread_zeros) * spread_scales


def compressed_packed(
    weight: Tensor, bits: int, group_size: int | None, *, symmetric: bool
) -> Packed:
    """pack-quantized of compressed-tensors."""
    block = (1, group_size or weight.shape[1])
    codes, zeros, scales, meant = _whole_numbers(weight, bits, block, symmetric=symmetric)
    parts = {
        "weight_packed": words_of(codes, bits),
        "weight_shape": torch.tensor(weight.shape),
        "weight_scale": scales,
    }
    if not symmetric:
        parts["weight_zero_point"] = words_of(zeros.T, bits).T
    return Packed(parts, meant)


def compressed_sorted(weight: Tensor, group_size: int, order: Tensor) -> Packed:
    """4 bits, columns put in groups by `order`: the first of it are group 0, and so on."""
    places = order.argsort()
    packed = compressed_packed(weight[:, order], 4, group_size, symmetric=True)
    codes = _whole_numbers(weight[:, order], 4, (1, group_size), symmetric=True)[0][:, places]
    groups = (places // group_size).int()
    parts = {**packed.tensors, "weight_packed": words_of(codes, 4), "weight_g_idx": groups}
    return Packed(parts, packed.weight[:, places])


def compressed_bytes(
    weight: Tensor, block: tuple[int | None, int | None], *, symmetric: bool
) -> Packed:
    """int-quantized of compressed-tensors."""
    whole = (block[0] or weight.shape[0], block[1] or weight.shape[1])
    codes, zeros, scales, meant = _whole_numbers(weight, 8, whole, symmetric=symmetric)
    parts = {"weight": (codes - 128).to(torch.int8), "weight_scale": scales}
    if not symmetric:
        parts["weight_zero_point"] = (zeros - 128).to(torch.int8)
    if block == (None, None):
        parts = {**parts, "weight_scale": scales.view(1)}
    return Packed(parts, meant)


def compressed_fp8(weight: Tensor, block: tuple[int | None, int | None]) -> Packed:
    """float-quantized of compressed-tensors."""
    whole = (block[0] or weight.shape[0], block[1] or weight.shape[1])
    codes, scales, meant = _fp8_and_scales(weight, whole)
    return Packed({"weight": codes, "weight_scale": scales}, meant)


def compressed_config(form: str, **weights: Any) -> dict[str, Any]:
    scheme = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", **weights}}
    groups = {"group_0": scheme}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


FORMATS: Mapping[str, Format] = {
    "fp8_tiles": Format(
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [48, 40]},
        lambda weight: fp8_tiles(weight, (48, 40)),
    ),
    "fp8_whole": Format({"quant_method": "fp8", "activation_scheme": "static"}, fp8_whole),
    "compressed_int4": Format(
        compressed_config("pack-quantized", num_bits=4, strategy="group", group_size=32),
        lambda weight: compressed_packed(weight, 4, 32, symmetric=True),
    ),
    "compressed_int4_asymmetric": Format(
        compressed_config(
            "pack-quantized", num_bits=4, strategy="group", group_size=16, symmetric=False
        ),
        lambda weight: compressed_packed(weight, 4, 16, symmetric=False),
    ),
    "compressed_int8_rows": Format(
        compressed_config("int-quantized", strategy="channel"),
        lambda weight: compressed_bytes(weight, (1, None), symmetric=True),
    ),
    "compressed_fp8_rows": Format(
        compressed_config("float-quantized", type="float", strategy="channel"),
        lambda weight: compressed_fp8(weight, (1, None)),
    ),
    "fp8_rows": Format({"quant_method": "fbgemm_fp8"}, fp8_rows),
}


def quantize_folder(folder: Path, kind: str, packed: Path, meant: Path) -> None:
    """Write the layers of a tiny checkpoint in a format (a key of FORMATS) into `packed`, and as
    the dense weights that they mean into `meant`. Embeddings and norms stay as they are."""
    form = FORMATS[kind]
    packed_tensors: dict[str, Tensor] = {}
    meant_tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if ".layers." not in name or tensor.dim() != 2:
            packed_tensors[name] = meant_tensors[name] = tensor
            continue
        result = form.pack(tensor.float())
        packed_tensors |= {f"{module}.{part}": part_of for part, part_of in result.tensors.items()}
        meant_tensors[name] = result.weight
    config = json.loads((folder / "config.json").read_bytes())
    for target, tensors, extra in (
        (packed, packed_tensors, {"quantization_config": form.config}),
        (meant, meant_tensors, {}),
    ):
        shutil.copytree(folder, target, dirs_exist_ok=True)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, target / "model.safetensors")
        (target / "config.json").write_text(json.dumps({**config, **extra}))
