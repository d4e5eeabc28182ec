from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.weight_files import WeightFiles
from novacron.testing.quantized_models import Packed, eight_bit, four_bit, random_weights

Open = Callable[..., WeightFiles]
ALL = (slice(None), slice(None))
CONFIG = {"quant_method": "bitsandbytes"}
STATE = "weight.quant_state.bitsandbytes__nf4"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 80),
    block_size=st.sampled_from([2, 64, 128]),
    nested_size=st.sampled_from([None, 3, 256]),
    kind=st.sampled_from(["nf4", "fp4"]),
    first=st.integers(0, 39),
    count=st.integers(0, 9),
)
def test_four_bits(
    rows: int,
    columns: int,
    block_size: int,
    nested_size: int | None,
    kind: str,
    first: int,
    count: int,
    open_packed: Open,
) -> None:
    """Blocks do not end where rows do, nor bytes."""
    packed = four_bit(
        random_weights(rows, columns), kind, block_size=block_size, nested_size=nested_size
    )
    checkpoint = open_packed(packed.tensors, CONFIG)
    assert checkpoint.names == {"m.weight", "norm.weight"}
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)
    some = slice(first, first + count)
    assert torch.equal(checkpoint.read("m.weight", (some, slice(None))), packed.weight[some])


@pytest.mark.parametrize("stored_as", [torch.bfloat16, torch.float32, torch.int8])
def test_bytes_that_are_stored_as_another_type(stored_as: torch.dtype, open_packed: Open) -> None:
    packed = four_bit(random_weights(16, 64), "nf4")
    weight = packed.tensors["weight"].flatten().view(stored_as)[:, None]
    checkpoint = open_packed({**packed.tensors, "weight": weight}, CONFIG)
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)


def test_eight_bits(open_packed: Open) -> None:
    packed = eight_bit(random_weights(12, 40))
    checkpoint = open_packed(packed.tensors, CONFIG)
    assert checkpoint.names == {"m.weight", "norm.weight"}
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)


def test_a_module_that_was_left_out_stays_plain(open_packed: Open) -> None:
    weight = random_weights(8, 8).bfloat16()
    assert torch.equal(open_packed({"weight": weight}, CONFIG).read("m.weight", ALL), weight)


def with_state(packed: Packed, **changes: Any) -> Tensor:
    state = json.loads(bytes(packed.tensors[STATE].tolist())) | changes
    return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)


NESTED = four_bit(random_weights(8, 64), "nf4", nested_size=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "'m.weight' is missing"),
        ({"weight.absmax": None}, "'m.weight.absmax' is missing"),
        ({"weight.quant_map": None}, "'m.weight.quant_map' is missing"),
        ({"weight.nested_absmax": None}, "'m.weight.absmax' is stored as uint8, not as float32"),
        ({"weight.nested_quant_map": None}, "'m.weight.nested_quant_map' is missing"),
        ({STATE: None}, f"'m.{STATE}' is missing"),
        ({STATE: torch.tensor([123], dtype=torch.uint8)}, "is no JSON"),
        ({STATE: torch.tensor([91] * 200_000, dtype=torch.uint8)}, "is no JSON"),
        ({STATE: torch.tensor([255], dtype=torch.uint8)}, "is no JSON"),
        ({STATE: torch.tensor([49], dtype=torch.uint8)}, "is no JSON object"),
        ({STATE: with_state(NESTED, shape=[64])}, "'shape' is"),
        ({STATE: with_state(NESTED, shape=[10**15, 64])}, "'m.weight' has not the size of"),
        ({STATE: with_state(NESTED, blocksize=0)}, "'blocksize' is 0"),
        ({STATE: with_state(NESTED, blocksize=7)}, "'blocksize' is 7"),
        ({STATE: with_state(NESTED, blocksize=128)}, "'m.weight.absmax' has the shape"),
        ({STATE: with_state(NESTED, nested_blocksize=9)}, "'m.weight.nested_absmax' has the shape"),
        ({STATE: with_state(NESTED, nested_offset="a")}, "'nested_offset' is 'a'"),
        ({"weight.quant_map": torch.ones(17)}, "'m.weight.quant_map' has the shape"),
    ],
)
def test_damaged_parts_are_named(
    change: dict[str, Tensor | None], message: str, open_packed: Open
) -> None:
    parts = {**NESTED.tensors, **change}
    with pytest.raises(ModelLoadError, match=message):
        open_packed({name: part for name, part in parts.items() if part is not None}, CONFIG)


KEYS = ["shape", "blocksize", "nested_blocksize", "nested_offset"]
JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.sampled_from(KEYS),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner) | st.lists(inner, max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    state=st.binary(min_size=1, max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_no_other_state_is_taken(state: bytes, open_packed: Open) -> None:
    parts = {**NESTED.tensors, STATE: torch.tensor(list(state), dtype=torch.uint8)}
    with pytest.raises(ModelLoadError, match="nf4"):
        open_packed(parts, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "'m.weight' is missing"),
        ({"SCB": None}, "'m.weight' is stored as int8, and neither"),
        ({"SCB": torch.ones(8)}, r"'m.SCB' has the shape \[8\], not"),
        ({"weight_format": torch.tensor(2, dtype=torch.uint8)}, "'m.weight_format' is not 0"),
    ],
)
def test_damaged_parts_of_eight_bits_are_named(
    change: dict[str, Tensor | None], message: str, open_packed: Open
) -> None:
    parts = {**eight_bit(random_weights(12, 40)).tensors, **change}
    with pytest.raises(ModelLoadError, match=message):
        open_packed({name: part for name, part in parts.items() if part is not None}, CONFIG)
