"""bfloat16 and e4m3 are those of torch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from novacron.kv_tiers.codecs.floats import E4M3_VALUES, to_bfloat16, to_e4m3, widen

floats = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)
within_e4m3 = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-448, 448, width=32))


@given(floats)
def test_bfloat16(numbers: np.ndarray) -> None:  # type: ignore[type-arg]
    expected = torch.from_numpy(numbers).bfloat16()
    bits = to_bfloat16(numbers)
    assert (bits.view(np.int16) == expected.view(torch.int16).numpy()).all()
    assert (widen(bits) == expected.float().numpy()).all()


@given(within_e4m3)
def test_e4m3(numbers: np.ndarray) -> None:  # type: ignore[type-arg]
    expected = torch.from_numpy(numbers).to(torch.float8_e4m3fn)
    codes = to_e4m3(numbers)
    assert (codes == expected.view(torch.uint8).numpy()).all()
    assert (E4M3_VALUES[codes] == expected.float().numpy()).all()


def test_every_e4m3_code_has_its_value() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    expected = codes.view(torch.float8_e4m3fn).float().numpy()
    is_number = np.isfinite(expected)
    assert is_number.sum() == 254
    assert (E4M3_VALUES[is_number] == expected[is_number]).all()


def test_what_is_larger_than_e4m3_becomes_the_largest() -> None:
    numbers = np.array([449, 1e6, -1e30, 448], np.float32)
    assert E4M3_VALUES[to_e4m3(numbers)].tolist() == [448, 448, -448, 448]
