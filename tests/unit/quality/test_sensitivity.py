from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from novacron.errors import ConfigError
from novacron.quality.estimates import Estimate
from novacron.quality.sensitivity import (
    LevelLoss,
    PartSensitivity,
    Sensitivity,
    expected_losses,
    plan_precision,
)
from novacron.quantization.precision_map import PrecisionMap


def loss(num_bytes: int, kl: float) -> LevelLoss:
    estimate = Estimate(value=kl, low=kl / 2, high=2 * kl)
    return LevelLoss(num_bytes=num_bytes, kl=estimate, nll_difference=estimate)


def part(name: str, int8: float, int4: float, *others: str) -> PartSensitivity:
    patterns = tuple(f"model.layers.0.{one}.weight" for one in (name, *others))
    losses = {"int8": loss(106, int8), "int4": loss(56, int4)}
    return PartSensitivity(name=name, patterns=patterns, plain_bytes=200, losses=losses)


MEASURED = Sensitivity(
    model_version="v",
    dtype="bfloat16",
    group_size=32,
    corpus="c",
    num_documents=1,
    num_tokens=1,
    other_bytes=10,
    parts=(
        part("self_attn.q_proj", 0.01, 3.0, "self_attn.k_proj"),
        part("mlp.gate_proj", 0.02, 0.5),
        part("mlp.down_proj", 0.03, 0.1),
    ),
)


def test_bytes_go_where_they_save_most() -> None:
    smallest = plan_precision(MEASURED, 10 + 3 * 56)
    assert smallest.levels == ("int4", "int4", "int4")
    more = plan_precision(MEASURED, 10 + 3 * 56 + 55)
    assert more.levels == ("int8", "int4", "int4")
    assert more.weight_bytes == 10 + 106 + 2 * 56 <= more.budget_bytes
    assert more.kl == pytest.approx(0.61)
    assert more.least_kl == more.kl
    everything = plan_precision(MEASURED, 10**9)
    assert everything.levels == (None, None, None)
    assert everything.kl == 0
    assert everything.overrides(MEASURED.parts) == ()


def test_overrides_name_every_matrix_that_is_rounded_and_no_other() -> None:
    plan = replace(plan_precision(MEASURED, 10**9), levels=(None, "int8", "int4"))
    levels = PrecisionMap.parse("none", plan.overrides(MEASURED.parts))
    found = [[levels.level_of(name) for name in one.patterns] for one in MEASURED.parts]
    assert found == [[None, None], ["int8"], ["int4"]]


def test_too_few_bytes_are_refused() -> None:
    with pytest.raises(ConfigError, match="take 178"):
        plan_precision(MEASURED, 177)


def test_what_was_measured_survives_its_file() -> None:
    data = msgspec.json.encode(MEASURED)
    assert msgspec.json.decode(data, type=Sensitivity) == MEASURED


def test_a_choice_loses_what_its_parts_do_and_what_is_not_measured_is_not_made_up() -> None:
    held = {
        "self_attn.q_proj": ("int4", "int4/32"),
        "mlp.gate_proj": ("int4/64",),
        "mlp.down_proj": (),
    }
    assert expected_losses(MEASURED, held) == {
        "self_attn.q_proj": 3.0, "mlp.gate_proj": None, "mlp.down_proj": 0.0,
    }  # fmt: skip
