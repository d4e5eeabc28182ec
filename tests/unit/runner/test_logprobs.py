import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from novacron.errors import RequestFailed
from novacron.records.request import SamplingParams
from novacron.runner.logprobs import prompt_logprobs
from novacron.runner.sampler import sample
from novacron.runner.sampling_row import SamplingRow

VOCAB_SIZE = 300


def _logits(num_rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_rows, VOCAB_SIZE, generator=generator) * 4


def test_agrees_with_log_softmax() -> None:
    logits = _logits(6)
    next_ids = [5, 0, 299, 17, 17, 3]
    reference = logits.double().log_softmax(-1)
    for t, position in enumerate(prompt_logprobs(logits, next_ids, 4)):
        top = reference[t].topk(4)
        assert position.token_ids == (next_ids[t], *top.indices.tolist())
        expected = [reference[t, next_ids[t]].item(), *top.values.tolist()]
        assert position.logprobs == pytest.approx(expected, abs=1e-7)
        assert position.rank == 1 + int((logits[t] > logits[t, next_ids[t]]).sum())


def test_without_alternatives() -> None:
    (position,) = prompt_logprobs(_logits(1), [9], 0)
    assert position.token_ids == (9,)
    assert len(position.logprobs) == 1


def test_no_positions() -> None:
    assert prompt_logprobs(torch.empty(0, VOCAB_SIZE), [], 3) == []


def test_equal_logits_come_in_order_of_token_ids() -> None:
    logits = torch.zeros(1, 6)
    logits[0, 3] = -0.0
    logits[0, 5] = 1.0
    (position,) = prompt_logprobs(logits, [4], 4)
    assert position.token_ids == (4, 5, 0, 1, 2)
    assert position.rank == 2


@given(st.lists(st.floats(width=32, min_value=-1e6, max_value=1e6), min_size=4, max_size=4))
def test_alternatives_are_sorted_by_value_then_id(values: list[float]) -> None:
    (position,) = prompt_logprobs(torch.tensor([values]), [0], 4)
    assert list(position.token_ids[1:]) == sorted(range(4), key=lambda i: (-values[i], i))


def test_minus_infinity_has_no_probability() -> None:
    (position,) = prompt_logprobs(torch.tensor([[0.0, -torch.inf]]), [1], 0)
    assert position.logprobs == (-torch.inf,)


def test_logits_that_are_not_finite_are_refused() -> None:
    logits = _logits(2)
    logits[1, 4] = torch.nan
    with pytest.raises(RequestFailed, match="not finite"):
        prompt_logprobs(logits, [1, 2], 1)


def test_sampled_logprobs_are_the_raw_distribution() -> None:
    """Temperature, penalties and biases change the choice, not what is reported."""
    logits = _logits(1)
    sampling = SamplingParams(
        seed=3, temperature=2.0, logit_bias={7: 100.0}, frequency_penalty=1.0, logprobs=2
    )
    (result,) = sample(logits, [SamplingRow(sampling, (1,), (2,))])
    assert result.token_id == 7
    assert result.logprobs == prompt_logprobs(logits, [7], 2)[0]
