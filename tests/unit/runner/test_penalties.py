import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from novacron.records.request import SamplingParams
from novacron.runner.penalties import edit_logits
from novacron.runner.sampling_row import SamplingRow

VOCAB_SIZE = 40


def _row(prompt: tuple[int, ...], output: tuple[int, ...], sampling: SamplingParams) -> SamplingRow:
    return SamplingRow(sampling, prompt, output)


def test_returns_the_same_tensor_when_nothing_is_asked() -> None:
    logits = torch.randn(2, VOCAB_SIZE)
    assert edit_logits(logits, [_row((1,), (2,), SamplingParams())] * 2) is logits


def test_repetition_as_in_transformers() -> None:
    logits = torch.randn(1, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    row = _row((1, 2, 2), (5, 1), SamplingParams(repetition_penalty=1.3))
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[1, 2, 2, 5, 1]]), logits)
    assert torch.equal(edit_logits(logits, [row]), expected)


def test_frequency_and_presence_as_openai_defines_them() -> None:
    row = _row((9,), (5, 1, 5), SamplingParams(frequency_penalty=0.5, presence_penalty=-0.25))
    edited = edit_logits(torch.zeros(1, VOCAB_SIZE), [row])
    expected = torch.zeros(1, VOCAB_SIZE)
    expected[0, 5] = -2 * 0.5 + 0.25
    expected[0, 1] = -0.5 + 0.25
    assert torch.equal(edited, expected)


def test_penalties_apply_to_biased_logits() -> None:
    row = _row((), (3,), SamplingParams(repetition_penalty=2.0, logit_bias={3: 4.0}))
    edited = edit_logits(torch.zeros(1, VOCAB_SIZE), [row])
    assert edited[0, 3] == 2.0


def test_only_rows_that_ask_are_changed() -> None:
    logits = torch.randn(3, VOCAB_SIZE)
    plain = _row((1,), (1, 2), SamplingParams())
    biased = _row((1,), (1, 2), SamplingParams(logit_bias={4: 1.0}))
    edited = edit_logits(logits, [plain, biased, plain])
    assert torch.equal(edited[0], logits[0])
    assert torch.equal(edited[2], logits[2])
    assert (edited[1] != logits[1]).nonzero().flatten().tolist() == [4]


def test_numpy_token_ids() -> None:
    logits = torch.randn(1, VOCAB_SIZE)
    sampling = SamplingParams(frequency_penalty=1.0, repetition_penalty=1.5)
    from_tuple = edit_logits(logits, [SamplingRow(sampling, (1, 2), (3, 3))])
    from_array = edit_logits(logits, [SamplingRow(sampling, np.array([1, 2]), np.array([3, 3]))])
    assert torch.equal(from_tuple, from_array)


def test_a_mask_of_another_vocabulary_is_our_bug() -> None:
    row = SamplingRow(SamplingParams(), (), (), token_mask=b"\xff" * 4)
    with pytest.raises(AssertionError, match="another vocabulary"):
        edit_logits(torch.zeros(1, VOCAB_SIZE), [row])
