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
from novacron.testing.quantized_models import awq, random_weights

Open = Callable[..., WeightFiles]
ALL = (slice(None), slice(None))


def config(group_size: int = 16, **others: Any) -> dict[str, Any]:
    return {"quant_method": "awq", "bits": 4, "group_size": group_size, **others}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    eights=st.integers(1, 6),
    groups=st.integers(1, 3),
    group_size=st.sampled_from([-1, 5, 32]),
    first=st.integers(0, 47),
    count=st.integers(0, 20),
)
def test_every_shape(
    eights: int, groups: int, group_size: int, first: int, count: int, open_packed: Open
) -> None:
    packed = awq(random_weights(eights * 8, groups * abs(group_size)), group_size)
    checkpoint = open_packed(packed.tensors, config(group_size))
    assert checkpoint.names == {"m.weight", "norm.weight"}
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)
    rows = slice(first, first + count)
    assert torch.equal(checkpoint.read("m.weight", (rows, slice(None))), packed.weight[rows])


def test_the_order_in_a_word(open_packed: Open) -> None:
    parts = {
        "qweight": torch.tensor([[0x75316420]], dtype=torch.int32),
        "qzeros": torch.zeros(1, 1, dtype=torch.int32),
        "scales": torch.ones(1, 8).half(),
    }
    assert open_packed(parts, config(1)).read("m.weight", ALL).flatten().tolist() == [*range(8)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qweight": None}, "'m.qweight' is missing"),
        ({"qzeros": None}, "'m.qzeros' is missing"),
        ({"scales": None}, "'m.scales' is missing"),
        ({"scales": torch.ones(2, 8)}, r"'m.scales' has the shape \[2, 8\], not \[4, 8\]"),
        ({"qzeros": torch.ones(4, 1)}, "'m.qzeros' is stored as float32, not as int32"),
    ],
)
def test_damaged_parts_are_named(
    change: dict[str, Tensor | None], message: str, open_packed: Open
) -> None:
    parts = {**awq(random_weights(8, 64), 16).tensors, **change}
    with pytest.raises(ModelLoadError, match=message):
        open_packed({name: part for name, part in parts.items() if part is not None}, config())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config(bits=8), "AWQ with 8 bits"),
        (config(version="gemv"), "the version 'gemv'"),
        (config(checkpoint_format="gemv_fast"), "the version 'gemv_fast'"),
        (config(group_size=0), "'group_size' is 0"),
        (config(group_size=32), "'m.qzeros' has the shape"),
    ],
)
def test_what_is_not_supported(wrong: dict[str, Any], message: str, open_packed: Open) -> None:
    with pytest.raises(ModelLoadError, match=message):
        open_packed(awq(random_weights(8, 64), 16).tensors, wrong)
