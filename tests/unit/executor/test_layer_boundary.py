"""What follows a layer, computed alone, against the whole model: the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.executor.layer_boundary import LayerBoundary
from novacron.executor.precision_units import share, units_of
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.quality.document import Document
from novacron.testing.tiny_models import make_tiny_model

LENGTHS = (30, 2, 70, 17)
DOCUMENTS = tuple(
    Document(tuple(range(3 + place, 3 + place + length)), max(1, length - 9))
    for place, length in enumerate(LENGTHS)
)


def teacher(folder: Path, *overrides: str) -> TeacherForcing:
    model = ModelConfig(device="cpu", num_threads=1, dtype="float32", quantization_layers=overrides)
    blueprint, loaded = load_teacher(EngineConfig(model=model), folder, longest=max(LENGTHS))
    few = 24  # so that documents go through several passes
    return TeacherForcing(
        blueprint, loaded.decoder, EngineConfig().cache, longest=max(LENGTHS), max_tokens=few
    )


def joined(states: object) -> torch.Tensor:
    return torch.cat(list(states))  # type: ignore[call-overload]


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_every_layer_of_another_precision(family: str, tmp_path: Path) -> None:
    folder = make_tiny_model(family, tmp_path / family)
    plain, mixed, rounded = teacher(folder), teacher(folder), teacher(folder, "*=int4")
    exact = joined(plain.hidden(DOCUMENTS))
    boundary = LayerBoundary(plain, DOCUMENTS)
    for layer in range(len(plain.decoder.layers)):
        boundary.advance(layer)
        units = [
            unit
            for unit in units_of(plain.decoder)
            if unit.patterns[0].startswith(f"model.layers.{layer}.")
        ]
        assert units
        for unit in units:
            share(mixed.decoder, rounded.decoder, unit)
            whole, after = joined(mixed.hidden(DOCUMENTS)), joined(boundary.hidden(mixed))
            torch.testing.assert_close(after, whole, atol=0, rtol=0)
            assert not torch.equal(after, exact)
            share(mixed.decoder, plain.decoder, unit)
    boundary.advance(len(plain.decoder.layers))
    torch.testing.assert_close(joined(boundary.hidden(mixed)), exact, atol=0, rtol=0)
