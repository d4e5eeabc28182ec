import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from novacron.runner.selection import largest_values


@given(
    rows=st.lists(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5), min_size=1, max_size=3
    ),
    count=st.integers(0, 5),
)
def test_are_the_first_of_the_sorted_values(rows: list[list[int]], count: int) -> None:
    expected = [sorted(row, reverse=True)[:count] for row in rows]
    assert largest_values(torch.tensor(rows), count).tolist() == expected


def test_leaves_the_values_alone() -> None:
    values = torch.tensor([[1.0, 3.0, 2.0]])
    assert largest_values(values, 2).tolist() == [[3.0, 2.0]]
    assert values.tolist() == [[1.0, 3.0, 2.0]]


def test_more_than_there_are_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        largest_values(torch.zeros(1, 3), 4)
