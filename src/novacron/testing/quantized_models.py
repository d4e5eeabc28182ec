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


def random_weights(*shape: int) -> Tensor:
    """The same for the same shape."""
    return torch.randn(shape, generator=torch.manual_seed(0))


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


def gptq(
    weight: Tensor,
    bits: int,
    group_size: int,
    *,
    symmetric: bool = True,
    is_v2: bool = False,
    order: Tensor | None = None,
) -> Packed:
    """`order` sorts the columns before they are put in groups, as desc_act does."""
    columns = weight.shape[1]
    size = columns if group_size == -1 else group_size
    order = torch.arange(columns) if order is None else order
    places = order.argsort()
    codes, zeros, scales, meant = _whole_numbers(
        weight[:, order], bits, (1, size), symmetric=symmetric
    )
    zero_words = words_of(zeros.T, bits)
    if not is_v2:
        zero_words -= words_of(torch.ones_like(zeros.T), bits)
    parts = {
        "qweight": words_of(codes[:, places], bits).T,
        "qzeros": zero_words,
        "scales": scales.T,
        "g_idx": (places // size).int(),
    }
    return Packed(parts, meant[:, places])


def awq(weight: Tensor, group_size: int) -> Packed:
    size = weight.shape[1] if group_size == -1 else group_size
    codes, zeros, scales, meant = _whole_numbers(weight, 4, (1, size), symmetric=False)

    def shuffled(numbers: Tensor) -> Tensor:
        """Of each eight outputs, those with even numbers first."""
        of_eight = numbers.T.reshape(numbers.shape[1], -1, 8)
        return torch.cat((of_eight[..., 0::2], of_eight[..., 1::2]), dim=-1).flatten(1)

    parts = {
        "qweight": words_of(shuffled(codes), 4),
        "qzeros": words_of(shuffled(zeros), 4),
        "scales": scales.T,
    }
    return Packed(parts, meant)


def _nearest(values: Tensor, table: Tensor) -> Tensor:
    return (values[..., None] - table).abs().argmin(-1)


def four_bit(
    weight: Tensor, kind: str, *, block_size: int = 64, nested_size: int | None = None
) -> Packed:
    """NF4 or FP4 of bitsandbytes. What the numbers mean stands in the file: any table does."""
    table = torch.linspace(-1, 1, 16) ** 3
    flat = weight.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block_size)).view(-1, block_size)
    largest = padded.abs().amax(1).clamp(min=1e-6)
    state: dict[str, Any] = {
        "quant_type": kind,
        "blocksize": block_size,
        "dtype": "bfloat16",
        "shape": list(weight.shape),
    }
    parts = {"weight.absmax": largest, "weight.quant_map": table}
    if nested_size is not None:
        offset = float(largest.mean())
        nested_table = torch.linspace(-1, 1, 256)
        short = -len(largest) % nested_size
        rest = torch.nn.functional.pad(largest - offset, (0, short)).view(-1, nested_size)
        nested_largest = rest.abs().amax(1).clamp(min=1e-6)
        nested = _nearest(rest / nested_largest[:, None], nested_table)
        meant_rest = nested_table[nested] * nested_largest[:, None]
        parts |= {
            "weight.absmax": nested.flatten()[: len(largest)].to(torch.uint8),
            "weight.nested_absmax": nested_largest,
            "weight.nested_quant_map": nested_table,
        }
        largest = meant_rest.flatten()[: len(largest)] + offset
        state |= {"nested_blocksize": nested_size, "nested_offset": offset}
        state |= {"nested_dtype": "float32"}
    numbers = _nearest(padded / largest[:, None], table)
    meant = (table[numbers] * largest[:, None]).flatten()[: len(flat)].view(weight.shape)
    numbers = numbers.flatten()[: len(flat) + len(flat) % 2].to(torch.uint8)
    parts |= {
        "weight": (numbers[0::2] * 16 + numbers[1::2])[:, None],
        f"weight.quant_state.bitsandbytes__{kind}": torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        ),
    }
    return Packed(parts, meant)


def eight_bit(weight: Tensor) -> Packed:
    """LLM.int8 of bitsandbytes."""
    largest = weight.abs().amax(1).clamp(min=1e-6)
    codes = (weight * 127 / largest[:, None]).round()
    parts = {
        "weight": codes.to(torch.int8),
        "SCB": largest,
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    return Packed(parts, codes * (largest / 127)[:, None])


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
    "gptq": Format(
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True},
        lambda weight: gptq(weight, 4, 32),
    ),
    "gptq_sorted": Format(
        {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True, "sym": True},
        lambda weight: gptq(weight, 4, 16, order=weight.square().sum(0).argsort(descending=True)),
    ),
    "gptq_v2_int8": Format(
        {"quant_method": "gptq", "bits": 8, "group_size": -1, "checkpoint_format": "gptq_v2"},
        lambda weight: gptq(weight, 8, -1, symmetric=False, is_v2=True),
    ),
    "awq": Format(
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        lambda weight: awq(weight, 32),
    ),
    "nf4": Format(
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        lambda weight: four_bit(weight, "nf4"),
    ),
    "fp4_nested": Format(
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        lambda weight: four_bit(weight, "fp4", nested_size=256),
    ),
    "llm_int8": Format({"quant_method": "bitsandbytes", "load_in_8bit": True}, eight_bit),
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
