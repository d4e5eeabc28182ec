from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.weight_files import WeightFiles
from novacron.testing.quantized_models import fp8_rows, fp8_tiles, fp8_whole, random_weights

Open = Callable[..., WeightFiles]
ALL = (slice(None), slice(None))
TILES = {"quant_method": "fp8", "weight_block_size": [16, 32]}
WHOLE = {"quant_method": "fp8"}


def e4m3(byte: int) -> float:
    """By the definition: a sign, four bits of exponent with a bias of 7, three of fraction."""
    sign, exponent, fraction = -1 if byte >> 7 else 1, byte >> 3 & 15, byte & 7
    if exponent == 0:
        return sign * fraction / 8 * 2**-6
    return sign * (1 + fraction / 8) * 2.0 ** (exponent - 7)


def test_every_value_of_fp8(open_packed: Open) -> None:
    numbers = [byte for byte in range(256) if byte & 127 != 127]  # the others are NaN
    codes = torch.tensor([numbers], dtype=torch.uint8).view(torch.float8_e4m3fn)
    checkpoint = open_packed({"weight": codes, "weight_scale": torch.tensor([0.5])}, WHOLE)
    assert checkpoint.read("m.weight", ALL).tolist() == [[e4m3(byte) / 2 for byte in numbers]]


@pytest.mark.parametrize("shape", [(16, 32), (48, 96), (40, 70), (3, 5)])
def test_tiles_that_share_a_scale(shape: tuple[int, int], open_packed: Open) -> None:
    packed = fp8_tiles(random_weights(*shape), (16, 32))
    checkpoint = open_packed(packed.tensors, TILES)
    assert checkpoint.names == {"m.weight", "norm.weight"}
    assert checkpoint.shape("m.weight") == shape
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)
    part = checkpoint.read("m.weight", (slice(1, 3), slice(2, 4)))
    assert torch.equal(part, packed.weight[1:3, 2:4])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    tile=st.tuples(st.sampled_from([1, 8, 16]), st.sampled_from([8, 32, 128])),
    first=st.tuples(st.integers(0, 69), st.integers(0, 69)),
)
def test_tiles_of_any_matrix(
    rows: int, columns: int, tile: tuple[int, int], first: tuple[int, int], open_packed: Open
) -> None:
    packed = fp8_tiles(random_weights(rows, columns), tile)
    config = {"quant_method": "fp8", "weight_block_size": list(tile)}
    checkpoint = open_packed(packed.tensors, config)
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)
    place = tuple(
        slice(min(start, size - 1), None)
        for start, size in zip(first, (rows, columns), strict=True)
    )
    assert torch.equal(checkpoint.read("m.weight", place), packed.weight[place])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), whole=st.booleans())
def test_whole_matrices_and_rows_of_any_size(
    rows: int, columns: int, whole: bool, open_packed: Open
) -> None:
    packed = (fp8_whole if whole else fp8_rows)(random_weights(rows, columns))
    checkpoint = open_packed(packed.tensors, WHOLE)
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)


def test_one_scale_and_one_a_row(open_packed: Open) -> None:
    for packed in (fp8_whole(random_weights(24, 40)), fp8_rows(random_weights(24, 40))):
        checkpoint = open_packed(packed.tensors, WHOLE)
        assert checkpoint.names == {"m.weight", "norm.weight"}, "scales of activations are unused"
        assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)


def test_a_module_that_was_left_out_stays_plain(open_packed: Open) -> None:
    weight = random_weights(8, 8).bfloat16()
    checkpoint = open_packed({"weight": weight}, TILES)
    assert torch.equal(checkpoint.read("m.weight", ALL), weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_scale_inv": None}, "the tensor 'm.weight_scale' is missing"),
        ({"weight": None}, "the tensor 'm.weight' is missing"),
        ({"weight_scale_inv": torch.ones(3, 2)}, r"m.weight_scale_inv.* \[3, 2\], not \[3, 3\]"),
        ({"weight_scale_inv": torch.ones(3, 3, dtype=torch.int32)}, "stored as int32, not as"),
        ({"weight": torch.ones(48, 96)}, "'m.weight' is stored as float32, not as float8_e4m3fn"),
        (
            {"weight": torch.ones(48, 96).to(torch.float8_e5m2)},
            "'m.weight' is stored as F8_E5M2, not as float8_e4m3fn",
        ),
        ({"weight": torch.ones(48).to(torch.float8_e4m3fn)}, "which is no matrix"),
    ],
)
def test_damaged_parts_are_named(
    change: dict[str, Tensor | None], message: str, open_packed: Open
) -> None:
    parts = {**fp8_tiles(random_weights(48, 96), (16, 32)).tensors, **change}
    with pytest.raises(ModelLoadError, match=message):
        open_packed({name: part for name, part in parts.items() if part is not None}, TILES)


@pytest.mark.parametrize("tile", [[16], [16, 0], "16"])
def test_tiles_that_make_no_sense(tile: Any, open_packed: Open) -> None:
    with pytest.raises(ModelLoadError, match="'weight_block_size' is"):
        open_packed({}, {"quant_method": "fp8", "weight_block_size": tile})
