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
from novacron.testing.quantized_models import gptq, random_weights, words_of

Open = Callable[..., WeightFiles]
ALL = (slice(None), slice(None))


def config(bits: int = 4, group_size: int = 16, **others: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": group_size, **others}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(1, 40),
    groups=st.integers(1, 3),
    group_size=st.sampled_from([-1, 16, 32]),
    bits=st.sampled_from([2, 4, 8]),
    symmetric=st.booleans(),
    is_v2=st.booleans(),
    is_sorted=st.booleans(),
    first=st.integers(0, 39),
)
def test_every_kind(
    rows: int,
    groups: int,
    group_size: int,
    bits: int,
    symmetric: bool,
    is_v2: bool,
    is_sorted: bool,
    first: int,
    open_packed: Open,
) -> None:
    columns = groups * 32
    order = torch.randperm(columns, generator=torch.manual_seed(rows)) if is_sorted else None
    packed = gptq(
        random_weights(rows, columns),
        bits,
        group_size,
        symmetric=symmetric,
        is_v2=is_v2,
        order=order,
    )
    form = {"checkpoint_format": "gptq_v2"} if is_v2 else {}
    checkpoint = open_packed(packed.tensors, config(bits, group_size, **form))
    assert checkpoint.names == {"m.weight", "norm.weight"}
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)
    part = checkpoint.read("m.weight", (slice(first, None), slice(3, 9)))
    assert torch.equal(part, packed.weight[first:, 3:9])


def test_groups_are_equal_where_none_are_listed(open_packed: Open) -> None:
    for group_size in (16, -1):
        packed = gptq(random_weights(8, 64), 4, group_size)
        parts = {name: part for name, part in packed.tensors.items() if name != "g_idx"}
        checkpoint = open_packed(parts, config(group_size=group_size))
        assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)


def test_a_zero_point_of_zero_borrowed_from_its_neighbour(open_packed: Open) -> None:
    """The words of the first format are those of the second less one in each number."""
    numbers = torch.full((8, 8), 5)
    zeros = torch.tensor([[0, 8, 0, 0, 15, 1, 0, 3]])
    parts = {
        "qweight": words_of(numbers, 4).T,
        "qzeros": words_of(zeros, 4) - 0x11111111,
        "scales": torch.ones(1, 8),
    }
    checkpoint = open_packed(parts, config(group_size=-1))
    assert torch.equal(checkpoint.read("m.weight", ALL)[:, 0], 5.0 - zeros[0])


def test_modules_that_patterns_leave_out(open_packed: Open) -> None:
    packed = gptq(random_weights(8, 64), 4, 16)
    open_packed(packed.tensors, config(dynamic={"-:.*lm_head": {}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qweight": None}, "'m.qweight' is missing"),
        ({"qzeros": None}, "'m.qzeros' is missing"),
        ({"scales": None}, "'m.scales' is missing"),
        ({"scales": torch.ones(2, 8)}, r"'m.scales' has the shape \[2, 8\], not \[4, 8\]"),
        ({"qzeros": torch.ones(4, 8)}, "'m.qzeros' is stored as float32, not as int32"),
        ({"qzeros": torch.ones(4, 2, dtype=torch.int32)}, "'m.qzeros' has the shape"),
        ({"g_idx": torch.ones(65, dtype=torch.int32)}, "'m.g_idx' has the shape"),
        ({"qweight": torch.ones(8, dtype=torch.int32)}, "'m.qweight' .* is no matrix"),
    ],
)
def test_damaged_parts_are_named(
    change: dict[str, Tensor | None], message: str, open_packed: Open
) -> None:
    parts = {**gptq(random_weights(8, 64), 4, 16).tensors, **change}
    with pytest.raises(ModelLoadError, match=message):
        open_packed({name: part for name, part in parts.items() if part is not None}, config())


@pytest.mark.parametrize("group", [-1, 4])
def test_groups_that_are_not_there(group: int, open_packed: Open) -> None:
    parts = {**gptq(random_weights(8, 64), 4, 16).tensors, "g_idx": torch.full((64,), group)}
    checkpoint = open_packed(parts, config())
    with pytest.raises(ModelLoadError, match="g_idx' names groups outside of the 4"):
        checkpoint.read("m.weight", ALL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config(bits=3), "GPTQ with 3 bits"),
        (config(group_size=0), "'group_size' is 0"),
        (config(group_size=32), r"'m.scales' has the shape \[4, 8\], not \[2, 8\]"),
        (config(bits=8), "'m.scales' has the shape"),
        (config(checkpoint_format="marlin"), "the format 'marlin'"),
        (config(is_marlin_format=True), "made for one kernel"),
        (config(dynamic={"+:.*down.*": {"bits": 8}}), "'dynamic' gives some modules other bits"),
        ({"quant_method": "gptq"}, "'bits' is missing"),
    ],
)
def test_what_is_not_supported(wrong: dict[str, Any], message: str, open_packed: Open) -> None:
    with pytest.raises(ModelLoadError, match=message):
        open_packed(gptq(random_weights(8, 64), 4, 16).tensors, wrong)
