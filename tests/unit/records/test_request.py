"""Seeds of the n completions of a prompt."""

from hypothesis import given
from hypothesis import strategies as st

from novacron.records.request import SamplingParams

SEEDS = st.integers(-(2**63), 2**63 - 1)


@given(SEEDS, st.integers(1, 64))
def test_neighbouring_seeds_share_no_copies(seed: int, distance: int) -> None:
    neighbours = (seed, (seed + distance) & (2**63 - 1))
    drawn = [SamplingParams(seed=s).for_copy(copy).seed for s in neighbours for copy in range(1, 9)]
    assert len(set(drawn)) == 16


@given(SEEDS, st.integers(0, 100))
def test_a_copys_seed_is_a_seed(seed: int, copy: int) -> None:
    drawn = SamplingParams(seed=seed).for_copy(copy).seed
    assert drawn is not None
    assert -(2**63) <= drawn < 2**63


def test_the_first_copy_keeps_the_seed_and_none_stays_none() -> None:
    assert SamplingParams(seed=-5).for_copy(0).seed == -5
    assert SamplingParams().for_copy(3).seed is None
