"""Scales that are made wrong: all that multiplies with them does, and they are put right again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.planted_error import wrong_scales
from novacron.executor.teacher_forcing import load_teacher
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.models.decoder import Decoder
from novacron.testing.tiny_models import make_tiny_model

FIRST = "model.layers.0."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


def decoder(folder: Path, **model: Any) -> Decoder:
    try:
        NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")
    config = ModelConfig(device="cpu", dtype="float32", num_threads=1, **model)
    return load_teacher(EngineConfig(model=config), folder, longest=8)[1].decoder


def products(decoder: Decoder) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        matrix.product(torch.randn(3, matrix.shape[1], generator=generator)).clone()
        for matrix in decoder.matrices
    ]


@pytest.mark.parametrize("level", ["int8", "int4"])
@pytest.mark.parametrize("group_size", [32, 64])
def test_products_are_as_wrong_as_the_scales(folder: Path, level: Any, group_size: int) -> None:
    model = decoder(folder, quantization=level, quantization_group_size=group_size)
    sound = products(model)
    with wrong_scales(model, FIRST, 2.0) as num_matrices:  # a factor that bfloat16 has
        wrong = products(model)
    assert num_matrices == 4
    for matrix, before, after in zip(model.matrices, sound, wrong, strict=True):
        factor = 2.0 if any(name.startswith(FIRST) for name in matrix.names) else 1.0
        torch.testing.assert_close(after, before * factor)
    assert all(map(torch.equal, products(model), sound))


def test_scales_are_put_right_after_an_error_too(folder: Path) -> None:
    model = decoder(folder, quantization="int8")
    sound = products(model)
    with pytest.raises(ZeroDivisionError), wrong_scales(model, FIRST, 1.2):
        raise ZeroDivisionError
    assert all(map(torch.equal, products(model), sound))


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [({}, FIRST), ({"quantization": "int8"}, "model.layers.9."),
     ({"quantization": "int8", "kernels": "torch"}, FIRST)],
)  # fmt: skip
def test_what_has_no_scales_is_refused(
    folder: Path, settings: dict[str, Any], pattern: str
) -> None:
    model = decoder(folder, **settings)
    with pytest.raises(ConfigError, match="quantization=int8"), wrong_scales(model, pattern, 1.2):
        pass
