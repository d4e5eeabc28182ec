"""FP8 that people have is computed with as it is stored, where a group of 128 has one scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from novacron.errors import ModelLoadError
from novacron.kernels.float8_linear import TorchFloat8Linear
from novacron.kernels.linear import FLOAT8, Quantization, Rounded
from novacron.models.weight_files import RoundedFiles, WeightFiles
from novacron.testing.quantized_models import (
    Packed,
    compressed_config,
    compressed_fp8,
    fp8_rows,
    fp8_tiles,
    fp8_whole,
    random_weights,
)

Open = Callable[..., WeightFiles]
WHOLE = {"quant_method": "fp8"}


def tiled(rows: int, columns: int) -> dict[str, Any]:
    return {"quant_method": "fp8", "weight_block_size": [rows, columns]}


def compressed(**weights: Any) -> dict[str, Any]:
    return compressed_config("float-quantized", type="float", symmetric=True, **weights)


def rounded(files: WeightFiles, quantization: Quantization = FLOAT8) -> Rounded | None:
    assert isinstance(files, RoundedFiles)
    return files.rounded("m.weight", slice(5, 40), quantization)


WEIGHT = random_weights(150, 300)


@pytest.mark.parametrize(
    ("packed", "config"),
    [
        (fp8_rows(WEIGHT), WHOLE),
        (fp8_whole(WEIGHT), WHOLE),
        (fp8_tiles(WEIGHT, (128, 128)), tiled(128, 128)),
        (fp8_tiles(WEIGHT, (64, 256)), tiled(64, 256)),
        (compressed_fp8(WEIGHT, (1, None)), compressed(strategy="channel")),
        (compressed_fp8(WEIGHT, (None, None)), compressed(strategy="tensor")),
        (
            compressed_fp8(WEIGHT, (128, 128)),
            compressed(strategy="block", block_structure=[128, 128]),
        ),
    ],
)
def test_no_number_changes(packed: Packed, config: dict[str, Any], open_packed: Open) -> None:
    files = open_packed(packed.tensors, config)
    found = rounded(files)
    assert found is not None
    meant = TorchFloat8Linear(torch.empty(35, 300), found).rows(torch.arange(35))
    assert torch.equal(meant, packed.weight[5:40])
    assert rounded(files, Quantization(8, 32)) is None


@pytest.mark.parametrize("tile", [(16, 32), (128, 64), (1, 192)])
def test_groups_with_several_scales_do_not_fit(tile: tuple[int, int], open_packed: Open) -> None:
    assert rounded(open_packed(fp8_tiles(WEIGHT, tile).tensors, tiled(*tile))) is None


@pytest.mark.parametrize(("part", "value"), [("weight", torch.nan), ("weight_scale", torch.inf)])
def test_what_is_not_finite_is_named(part: str, value: float, open_packed: Open) -> None:
    tensors = dict(fp8_rows(WEIGHT).tensors)
    damaged = tensors[part].float()
    damaged[20] = value
    tensors[part] = damaged.to(tensors[part].dtype)
    with pytest.raises(ModelLoadError, match=rf"'m\.{part}' holds NaN"):
        rounded(open_packed(tensors, WHOLE))
