"""Every format against the `gguf` package, which llama.cpp publishes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import ModelLoadError
from novacron.models.gguf_blocks import FORMATS, find_format


def ids(code: int) -> str:
    return FORMATS[code].name


@pytest.mark.parametrize("code", FORMATS, ids=ids)
def test_names_and_sizes(code: int) -> None:
    theirs = gguf.GGMLQuantizationType(code)
    found = find_format(code, "w")
    assert found.name == theirs.name
    assert (found.num_values, found.num_bytes) == gguf.GGML_QUANT_SIZES[theirs]


@pytest.mark.parametrize("code", FORMATS, ids=ids)
@given(num_blocks=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_values_of_random_bytes(code: int, num_blocks: int, seed: int) -> None:
    """Every bit pattern is a valid block; scales among them are infinite or no number at all."""
    found = FORMATS[code]
    blocks = np.random.default_rng(seed).integers(
        0, 256, (num_blocks, found.num_bytes), dtype=np.uint8
    )
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType(code))
    values = found.dequantize(torch.from_numpy(blocks))
    assert values.dtype == torch.float32
    assert values.shape == (num_blocks, found.num_values)
    np.testing.assert_array_equal(values.numpy(), expected)


@pytest.mark.parametrize("code", FORMATS, ids=ids)
def test_some_blocks_of_many(code: int) -> None:
    found = FORMATS[code]
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 60, (5, found.num_bytes), dtype=torch.uint8, generator=generator)
    assert torch.equal(found.dequantize(blocks[1:4]), found.dequantize(blocks)[1:4])


@pytest.mark.parametrize(("code", "name"), [(16, "IQ2_XXS"), (39, "MXFP4"), (77, "number 77")])
def test_other_formats_are_refused_by_name(code: int, name: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"^m\.gguf: 'w' is of the type {name}, .*Q4_K, "):
        find_format(code, "m.gguf: 'w'")
