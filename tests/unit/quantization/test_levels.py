from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.quantization.levels import usual_group_size, usual_sharing

inputs = st.integers(1, 40_000)


@given(inputs, st.sampled_from([32, 64, 128]))
def test_what_shares_a_scale_of_inputs_is_never_cut(num_inputs: int, group_size: int) -> None:
    sharing = usual_sharing("int4", group_size, num_inputs)
    span = sharing * group_size
    assert sharing in (1, 2, 4)
    assert span <= 128
    assert sharing == 1 or num_inputs % (4 * span) == 0


def test_spans_are_as_long_as_fits() -> None:
    spans = [32 * usual_sharing("int4", 32, size) for size in (2048, 11008, 768, 96)]
    assert spans == [128, 64, 64, 32]
    assert usual_sharing("int8", 32, 2048) == 1


@given(inputs)
def test_usual_groups(num_inputs: int) -> None:
    assert usual_group_size("int4", num_inputs) == 32
    size = usual_group_size("int8", num_inputs)
    assert size == 32 or num_inputs % size == 0
