"""Writes the files beside it: small matrices packed by the libraries that define the formats, with
the dense weights that these libraries read from them.

The libraries are no test dependencies: they want versions of torch and transformers of their own.
In a virtual environment with torch and transformers:

    pip install --no-deps compressed-tensors==0.20.0 loguru bitsandbytes==0.50.2
    pip download --no-deps autoawq==0.2.9 auto-gptq==0.7.1   # and unpack both into LIBRARIES
    python make.py LIBRARIES
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
OUT, IN = 24, 128
OUT_OF_NESTED = 136  # more than the 256 blocks of 64 weights that share a nested scale


def weight_of(seed: int, rows: int = OUT) -> Tensor:
    return torch.randn(rows, IN, generator=torch.manual_seed(seed)) * 0.05


def write(name: str, config: dict[str, Any], parts: dict[str, Tensor], dense: Tensor) -> None:
    tensors = {f"m.{part}": tensor.contiguous() for part, tensor in parts.items()}
    metadata = {"quantization_config": json.dumps(config)}
    save_file({**tensors, "dense": dense.contiguous()}, HERE / f"{name}.safetensors", metadata)
    print(name, {part: tuple(tensor.shape) for part, tensor in parts.items()})


def without_its_package(folder: Path, package: str) -> None:
    """Make modules of a package importable without running the files that open its folders."""
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        name = ".".join((package, *path.relative_to(folder).parts))
        module = types.ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module


def compressed_tensors() -> None:
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "int4_groups": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32}),
        "int4_asymmetric": (
            "pack-quantized",
            {"num_bits": 4, "strategy": "group", "group_size": 64, "symmetric": False},
        ),
        "int8_packed_rows": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
        "int8_rows": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
        "int8_asymmetric": (
            "int-quantized",
            {"num_bits": 8, "strategy": "channel", "symmetric": False},
        ),
        "fp8_whole": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
        "fp8_rows": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
        "fp8_tiles": (
            "float-quantized",
            {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [8, 64]},
        ),
    }
    for seed, (name, (form, settings)) in enumerate(kinds.items()):
        arguments = QuantizationArgs(**settings)
        scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
        weight = weight_of(seed).bfloat16()
        match settings["strategy"]:
            case "tensor":
                low, high = weight.min().view(1), weight.max().view(1)
            case "block":
                tiles = weight.unflatten(0, (-1, 8)).unflatten(2, (-1, 64))
                low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
            case _:
                groups = weight.unflatten(1, (-1, settings.get("group_size", IN)))
                low, high = groups.amin(-1), groups.amax(-1)
        scale, zero_point = calculate_qparams(low, high, arguments)
        state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero_point}
        compressor = BaseCompressor.get_value_from_registry(form)
        packed = compressor.compress(state, scheme)
        dense = compressor.decompress(packed, scheme)["weight"]
        config = {
            "quant_method": "compressed-tensors",
            "format": form,
            "config_groups": {"group_0": {"weights": settings, "targets": ["Linear"]}},
        }
        write(f"compressed_{name}", config, packed, dense)


def bitsandbytes() -> None:
    from bitsandbytes import functional

    for kind, nested in (("nf4", False), ("nf4", True), ("fp4", False)):
        weight = weight_of(20, OUT_OF_NESTED if nested else OUT).bfloat16()
        packed, state = functional.quantize_4bit(
            weight, blocksize=64, quant_type=kind, compress_statistics=nested
        )
        dense = functional.dequantize_4bit(packed, state)
        parts = {f"weight.{part}": t for part, t in state.as_dict(packed=True).items()}
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        name = f"bitsandbytes_{kind}{'_nested' if nested else ''}"
        write(name, config, {"weight": packed, **parts}, dense)
    codes, scales, _ = functional.int8_vectorwise_quant(weight_of(21).half())
    dense = functional.int8_vectorwise_dequant(codes, scales)
    parts = {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    write("bitsandbytes_int8", {"quant_method": "bitsandbytes"}, parts, dense)


def autoawq(libraries: Path) -> None:
    [folder] = libraries.glob("autoawq*/awq")
    without_its_package(folder, "awq")
    sys.modules["accelerate"] = types.ModuleType("accelerate")  # imported, not needed here
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    linear = nn.Linear(IN, 32, bias=False)
    linear.weight.data = weight_of(30, 32)
    groups = linear.weight.data.unflatten(1, (-1, 64))
    scales = ((groups.amax(-1) - groups.amin(-1)) / 15).half().float()
    zeros = (-groups.amin(-1) / scales).round()
    codes = (groups / scales[..., None] + zeros[..., None]).round().clamp(0, 15)
    linear.weight.data = ((codes - zeros[..., None]) * scales[..., None]).flatten(1)
    packed = WQLinear_GEMM.from_linear(linear, 4, 64, scales=scales.T, zeros=zeros.T)
    dense = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, 4, 64).T
    config = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}
    write("awq", config, dict(packed.named_buffers()), dense)


def auto_gptq(libraries: Path) -> None:
    [folder] = libraries.rglob("auto_gptq")
    without_its_package(folder, "auto_gptq")
    from auto_gptq.nn_modules.qlinear.qlinear_cuda import QuantLinear

    for bits, is_sorted in ((4, False), (4, True), (8, True), (2, False)):
        linear = nn.Linear(IN, 32, bias=False)
        linear.weight.data = weight_of(40 + bits, 32)
        order = torch.randperm(IN, generator=torch.manual_seed(bits))
        group = torch.arange(IN) // 32 if not is_sorted else order.argsort() // 32
        low, high = torch.empty(32, IN // 32), torch.empty(32, IN // 32)
        for index in range(IN // 32):
            part = linear.weight.data[:, group == index]
            low[:, index], high[:, index] = part.amin(1), part.amax(1)
        scales = ((high - low) / (2**bits - 1)).half().float()
        zeros = (-low / scales).round().clamp(1, 2**bits - 1)
        codes = (linear.weight.data / scales[:, group] + zeros[:, group]).round()
        codes = codes.clamp(0, 2**bits - 1)
        linear.weight.data = (codes - zeros[:, group]) * scales[:, group]
        packed = QuantLinear(bits, 32, IN, 32, bias=False)
        packed.pack(linear, scales, zeros, group.int())
        packed.scales = packed.scales.half()
        dense = packed(torch.eye(IN).half()).T
        config = {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": is_sorted}
        name = f"gptq_{bits}{'_sorted' if is_sorted else ''}"
        write(name, config, dict(packed.named_buffers()), dense)


def transformers_fp8() -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    tiles = weight_of(50).unflatten(0, (-1, 8)).unflatten(2, (-1, 32))
    scales = tiles.abs().amax((1, 3)) / 448
    codes = (tiles / scales[:, None, :, None]).flatten(2).flatten(0, 1).to(torch.float8_e4m3fn)
    dense = Fp8Dequantize(None)._dequantize_one(codes, scales)
    config = {"quant_method": "fp8", "weight_block_size": [8, 32]}
    write("fp8", config, {"weight": codes, "weight_scale_inv": scales}, dense)


if __name__ == "__main__":
    compressed_tensors()
    bitsandbytes()
    transformers_fp8()
    autoawq(Path(sys.argv[1]))
    auto_gptq(Path(sys.argv[1]))
