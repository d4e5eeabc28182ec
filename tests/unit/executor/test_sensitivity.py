"""Parts of real (tiny) models: which there are, what each loses, and that they add up in bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor import sensitivity
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.precision_units import share, units_of
from novacron.executor.sensitivity import measure_sensitivity
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.quality.document import Document
from novacron.quality.document_losses import LossJournal
from novacron.quality.sensitivity import Sensitivity, plan_precision
from novacron.quantization.precision_map import PrecisionMap
from novacron.testing.tiny_models import make_tiny_model

DOCUMENTS = tuple(Document(tuple(range(start, start + 30)), 1) for start in (3, 60, 200))
FAMILIES = ("llama", "qwen2", "mixtral", "qwen2_moe")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {family: make_tiny_model(family, base / family) for family in FAMILIES}


def engine(**model: Any) -> EngineConfig:
    return EngineConfig(model=ModelConfig(device="cpu", num_threads=1, dtype="float32", **model))


def teacher(folder: Path, *overrides: str) -> TeacherForcing:
    return load_teacher(engine(quantization_layers=overrides), folder, longest=30)[1]


def hidden(model: TeacherForcing) -> torch.Tensor:
    return torch.cat(list(model.hidden(DOCUMENTS)))


@pytest.mark.parametrize("family", FAMILIES)
def test_units_hold_every_matrix_that_can_be_rounded_once(
    family: str, folders: dict[str, Path]
) -> None:
    decoder = teacher(folders[family]).decoder
    units = units_of(decoder)
    places = [place for unit in units for place in unit.places]
    assert len(places) == len(set(places))
    rounded = teacher(folders[family], "*=int4").decoder
    expected = {m.names for m in rounded.matrices if m.quantization is not None}
    found = {m.names for place in places for m in [rounded.get_submodule(place)]}
    assert found == expected
    patterns = [f"{pattern}=int8" for unit in units for pattern in unit.patterns]
    levels = PrecisionMap.parse("none", patterns)
    levels.check_patterns([name for matrix in decoder.matrices for name in matrix.names])
    if family == "mixtral":
        experts = [unit for unit in units if "experts" in unit.name]
        assert [len(unit.places) for unit in experts] == [4] * 2 * 3


@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral"])
def test_a_shared_part_computes_as_if_it_had_been_loaded_so(
    family: str, folders: dict[str, Path]
) -> None:
    folder = folders[family]
    mixed, plain, rounded = teacher(folder), teacher(folder), teacher(folder, "*=int4")
    exact = hidden(plain)
    for unit in units_of(plain.decoder)[:4]:
        share(mixed.decoder, rounded.decoder, unit)
        loaded = teacher(folder, *(f"{pattern}=int4" for pattern in unit.patterns))
        found = hidden(mixed)
        torch.testing.assert_close(found, hidden(loaded), atol=0, rtol=0)
        torch.testing.assert_close(
            mixed.logits(found), loaded.logits(hidden(loaded)), atol=0, rtol=0
        )
        share(mixed.decoder, plain.decoder, unit)
    torch.testing.assert_close(hidden(mixed), exact, atol=0, rtol=0)


def measure(folder: Path, *levels: Any, **model: Any) -> Sensitivity:
    return measure_sensitivity(
        engine(**model), folder, DOCUMENTS, levels, corpus="numbers", progress=lambda done: None
    )


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_plan_takes_the_bytes_that_it_says_when_it_is_served(
    family: str, folders: dict[str, Path]
) -> None:
    folder = folders[family]
    measured = measure(folder, "int8", "int4")
    assert all(part.losses["int8"].kl.value > 0 for part in measured.parts)
    losses = {
        level: sum(part.losses[level].kl.value for part in measured.parts)
        for level in ("int8", "int4")
    }
    assert 10 * losses["int8"] < losses["int4"]
    plain = draw_blueprint(engine().model, folder, 1).shape().weight_bytes
    assert plan_precision(measured, 10**9).weight_bytes == plain
    budget = plain // 3
    plan = plan_precision(measured, budget)
    assert {None, "int4"} >= set(plan.levels) - {"int8"}
    served = replace(engine().model, quantization_layers=plan.overrides(measured.parts))
    assert draw_blueprint(served, folder, 1).shape().weight_bytes == plan.weight_bytes <= budget


def test_bytes_are_those_of_the_precision_that_is_served(folders: dict[str, Path]) -> None:
    single = measure(folders["llama"], "int8")
    config = engine()
    config = replace(config, model=replace(config.model, dtype="bfloat16"))
    measured = measure_sensitivity(
        config, folders["llama"], DOCUMENTS, ("int8",), corpus="", progress=lambda done: None
    )
    half = measured.parts[0].plain_bytes
    assert single.parts[0].plain_bytes == 2 * half
    assert measured.parts[0].losses["int8"].kl == single.parts[0].losses["int8"].kl
    assert measured.dtype == "bfloat16"


def test_a_measurement_that_was_ended_goes_on(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run by run, the same as at once; and what was measured is not measured again."""
    whole = measure(folders["llama"], "int8", "int4")
    monkeypatch.setattr(sensitivity, "_VALUES_OF_A_RUN", 1)  # a document
    path = tmp_path / "measured.part"
    fractions: list[float] = []

    def go_on(until: float) -> Sensitivity:
        def progress(fraction: float) -> None:
            fractions.append(fraction)
            if fraction > until:
                raise KeyboardInterrupt

        return measure_sensitivity(
            engine(), folders["llama"], DOCUMENTS, ("int8", "int4"), corpus="numbers",
            progress=progress, journal=LossJournal(path, {}),
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        go_on(0.5)
    assert len(LossJournal(path, {}).runs) == 1
    fractions.clear()
    assert go_on(2.0) == whole
    assert fractions == sorted(fractions)
    assert fractions[0] > 1 / 3
    assert fractions[-1] == pytest.approx(1)


def test_a_level_that_cannot_be_had_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be held in fp32 here.*int4, int8"):
        measure(folders["llama"], "int8", "fp32")
