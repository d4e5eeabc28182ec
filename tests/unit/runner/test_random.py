import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.runner.random import uniforms

_UINT64_MASK = (1 << 64) - 1

int64s = st.integers(-(2**63), 2**63 - 1)
positions = st.integers(0, 2**40)

GOLDEN = [
    "0x1.c4415072f63b9p-1",
    "0x1.b9e279aa86e58p-2",
    "0x1.7fdf0061bb85ap-1",
    "0x1.8c5caca54d290p-1",
    "0x1.8cb2de7f3338ep-2",
    "0x1.5be05f4aa9ca6p-1",
]


def _splitmix64(state: int) -> int:
    """One output of the reference C code, for the state before its addition of GAMMA."""
    z = (state + 0x9E3779B97F4A7C15) & _UINT64_MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _UINT64_MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _UINT64_MASK
    return z ^ (z >> 31)


def test_reference_outputs_of_splitmix64() -> None:
    """The published sequence for the seed 1234567, so that the helper above is right."""
    state = 1234567
    outputs = []
    for _ in range(3):
        outputs.append(_splitmix64(state))
        state = (state + 0x9E3779B97F4A7C15) & _UINT64_MASK
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seed=int64s, position=positions)
def test_is_the_construction_of_the_docstring(seed: int, position: int) -> None:
    gamma = 0x9E3779B97F4A7C15
    start = _splitmix64(seed - gamma & _UINT64_MASK)
    bits = _splitmix64(start + position * gamma)
    assert uniforms([seed], [position])[0] == (bits >> 11) / 2**53


def test_golden_values_never_change() -> None:
    """Streams that were begun by an older release must go on with the same tokens."""
    values = uniforms([0, 0, 1, -1, 2**63 - 1, 42], [0, 1, 0, 7, 100_000, 2**40])
    assert [value.hex() for value in values.tolist()] == GOLDEN


@given(pairs=st.lists(st.tuples(int64s, positions), min_size=1, max_size=8))
def test_depends_on_its_own_pair_only(pairs: list[tuple[int, int]]) -> None:
    together = uniforms([seed for seed, _ in pairs], [position for _, position in pairs])
    alone = [uniforms([seed], [position])[0] for seed, position in pairs]
    assert together.tolist() == alone
    assert all(0.0 <= value < 1.0 for value in alone)


@pytest.mark.parametrize("vary", ["seed", "position"])
def test_spreads_evenly(vary: str) -> None:
    """Chi-square of 100,000 numbers in 256 bins; neighbouring seeds and positions are the worst."""
    count = 100_000
    counter = list(range(count))
    fixed = [12345] * count
    values = uniforms(counter, fixed) if vary == "seed" else uniforms(fixed, counter)
    observed = np.bincount((values * 256).astype(int), minlength=256)
    chi_square = float(((observed - count / 256) ** 2 / (count / 256)).sum())
    assert 170 < chi_square < 350  # 255 degrees of freedom, more than four standard deviations


def test_neighbours_are_not_correlated() -> None:
    values = uniforms([7] * 100_000, list(range(100_000)))
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.015
    next_seed = uniforms([8] * 100_000, list(range(100_000)))
    assert abs(np.corrcoef(values, next_seed)[0, 1]) < 0.015
