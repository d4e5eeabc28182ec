import pytest
import torch

from novacron.runner.probability import MAX_WEIGHT, integer_weights, log_total, rows_per_group


def test_the_likeliest_weighs_the_most_and_the_excluded_nothing() -> None:
    x = torch.tensor([[1.0, 3.0, -torch.inf, 3.0]])
    weights = integer_weights(x, x.amax(-1))
    assert weights[0, [1, 3]].tolist() == [MAX_WEIGHT, MAX_WEIGHT]
    assert weights[0, 2] == 0
    assert weights[0, 0] / MAX_WEIGHT == pytest.approx(torch.tensor(-2.0).double().exp().item())


def test_totals_of_a_large_vocabulary_do_not_overflow() -> None:
    x = torch.zeros(1, 1 << 18)
    total = integer_weights(x, x.amax(-1)).sum().item()
    assert total == MAX_WEIGHT << 18
    assert log_total(int(total)) == pytest.approx(torch.tensor(2.0**18).log().item(), rel=1e-6)


def test_groups_have_at_least_one_row() -> None:
    assert rows_per_group(10**9, torch.device("cpu")) == 1
