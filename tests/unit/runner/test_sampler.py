import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.kernels.native.sampling import NativeChoose
from novacron.kernels.table import Choose
from novacron.records.request import SamplingParams
from novacron.runner import sampler
from novacron.runner.random import uniforms
from novacron.runner.sampler import choose_with_torch
from novacron.runner.sampling_row import SampledToken, SamplingRow

VOCAB_SIZE = 517  # not a multiple of anything

try:
    CHOOSE: list[Choose] = [choose_with_torch, NativeChoose(NativeContext(1))]
except NativeUnavailable:
    CHOOSE = [choose_with_torch]

_chosen_by: Choose = choose_with_torch


@pytest.fixture(scope="module", params=CHOOSE, ids=["torch", "native"][: len(CHOOSE)], autouse=True)
def _chosen_by_each(request: pytest.FixtureRequest) -> None:
    """Every test of this file is about both."""
    global _chosen_by
    _chosen_by = request.param


def sample(logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
    return sampler.sample(logits, rows, _chosen_by)


def _logits(num_rows: int, seed: int = 0, vocab_size: int = VOCAB_SIZE) -> Tensor:
    return torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


def _row(
    prompt: Sequence[int] = (1, 2), output: Sequence[int] = (), **sampling: object
) -> SamplingRow:
    params = msgspec.structs.replace(SamplingParams(seed=0), **sampling)
    return SamplingRow(params, tuple(prompt), tuple(output))


def _mask(allowed: Sequence[int], vocab_size: int = VOCAB_SIZE) -> bytes:
    bits = np.zeros((vocab_size + 31) // 32 * 32, dtype=np.uint8)
    bits[list(allowed)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def _tokens(results: list[SampledToken]) -> list[int]:
    assert [result.error for result in results] == [None] * len(results)
    return [result.token_id for result in results]


# --- greedy -----------------------------------------------------------------------------------


def test_temperature_zero_takes_the_largest() -> None:
    logits = _logits(5)
    assert _tokens(sample(logits, [_row(temperature=0.0)] * 5)) == logits.argmax(-1).tolist()


def test_temperature_zero_takes_the_lowest_id_among_equals() -> None:
    logits = torch.zeros(1, VOCAB_SIZE)
    logits[0, [40, 300, 301]] = 2.0
    assert _tokens(sample(logits, [_row(temperature=0.0)])) == [40]


def test_no_rows() -> None:
    assert sample(torch.empty(0, VOCAB_SIZE), []) == []


def test_leaves_the_logits_alone() -> None:
    logits = _logits(3)
    before = logits.clone()
    rows = [
        _row(top_k=3, top_p=0.5, min_p=0.1, logit_bias={3: 1.0}, logprobs=2),
        replace(_row(output=(5, 5), frequency_penalty=1.0), token_mask=_mask([1, 2])),
        _row(temperature=0.0),
    ]
    sample(logits, rows)
    assert torch.equal(logits, before)


# --- the same alone and in any batch ----------------------------------------------------------


@st.composite
def sampling_rows(draw: st.DrawFn) -> SamplingRow:
    optional = {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 5, 300, 100_000]),
        "top_p": st.sampled_from([1.0, 0.9, 0.5, 1e-9]),
        "min_p": st.sampled_from([0.0, 0.05, 1.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "presence_penalty": st.sampled_from([0.0, -1.1]),
        "logit_bias": st.sampled_from([{}, {3: 5.0, 9: -100.0}]),
        "min_tokens": st.sampled_from([0, 3]),
        "logprobs": st.sampled_from([None, 0, 3]),
    }
    params = SamplingParams(
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        **{name: draw(values) for name, values in optional.items()},
    )
    token_ids = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=6)
    return SamplingRow(
        params,
        tuple(draw(token_ids)),
        tuple(draw(token_ids)),
        token_mask=_mask(range(0, VOCAB_SIZE, 3)) if draw(st.booleans()) else None,
        suppressed_token_ids=draw(st.sampled_from([(), (0, 7)])),
    )


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(sampling_rows(), min_size=1, max_size=9), seed=st.integers(0, 1000))
def test_a_row_is_bit_equal_alone_and_in_any_batch(rows: list[SamplingRow], seed: int) -> None:
    # Rounding to a coarse grid makes equal logits, as bfloat16 does.
    logits = (_logits(len(rows), seed) * 4).round() / 4
    together = sample(logits, rows)
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    backwards = sample(logits.flip(0), rows[::-1])[::-1]
    assert together == alone == backwards


def test_draws_by_position_not_by_call() -> None:
    logits = _logits(1)
    rows = [
        _row(prompt=(1, 2, 3)),
        _row(prompt=(1,), output=(2, 3)),
        _row(prompt=(4, 5), output=(6,)),
    ]
    assert len(set(_tokens(sample(logits.repeat(3, 1), rows)))) == 1


# --- features ---------------------------------------------------------------------------------


def test_mask_allows_only_its_tokens() -> None:
    allowed = [0, 31, 32, 516]
    rows = [replace(_row(seed=seed), token_mask=_mask(allowed)) for seed in range(50)]
    chosen = set(_tokens(sample(torch.zeros(50, VOCAB_SIZE), rows)))
    assert chosen == set(allowed)


def test_logit_bias_moves_the_choice() -> None:
    rows = [_row(temperature=0.0, logit_bias={11: 100.0}), _row(logit_bias={12: 100.0})]
    assert _tokens(sample(_logits(2), rows)) == [11, 12]


def test_tokens_that_end_are_out_of_reach_before_min_tokens() -> None:
    logits = torch.zeros(2, VOCAB_SIZE)
    logits[:, 5] = 50.0
    logits[:, 6] = 20.0
    short = replace(_row(output=(1,), min_tokens=2, temperature=0.0), suppressed_token_ids=(5,))
    long = replace(_row(output=(1, 1), min_tokens=2, temperature=0.0), suppressed_token_ids=(5,))
    assert _tokens(sample(logits, [short, long])) == [6, 5]


def test_min_tokens_within_a_grammar() -> None:
    row = replace(_row(min_tokens=2, temperature=0.0), suppressed_token_ids=(5,))
    going_on = replace(row, token_mask=_mask([5, 9]))
    complete = replace(row, token_mask=_mask([5]))
    logits = torch.zeros(2, VOCAB_SIZE)
    assert _tokens(sample(logits, [going_on, complete])) == [9, 5]


def test_frequency_and_presence_count_the_output_only() -> None:
    logits = torch.zeros(2, 8)
    logits[:, 3] = 1.0
    logits[:, 4] = 0.9
    prompt, output = (4, 4, 4), (3, 3)
    rows = [
        _row(prompt, output, temperature=0.0, frequency_penalty=0.04),  # 1.0 - 2 * 0.04 > 0.9
        _row(prompt, output, temperature=0.0, frequency_penalty=0.04, presence_penalty=0.04),
    ]
    assert _tokens(sample(logits, rows)) == [3, 4]


# --- against transformers ---------------------------------------------------------------------


def _reference_probabilities(logits_V: Tensor, row: SamplingRow) -> Tensor:
    sampling = row.sampling
    seen = torch.tensor([[*row.prompt_token_ids, *row.output_token_ids]])
    scores = logits_V[None].clone()
    processors = [
        RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        TemperatureLogitsWarper(sampling.temperature),
    ]
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(MinPLogitsWarper(sampling.min_p))
    for processor in processors:
        scores = processor(seen, scores)
    return scores[0].double().softmax(-1)


CASES = {
    "plain": {},
    "temperature": {"temperature": 0.5},
    "top_k": {"top_k": 7},
    "top_p": {"top_p": 0.6},
    "top_p beyond the first guess": {"top_p": 0.97, "temperature": 6.0},
    "min_p": {"min_p": 0.1},
    "repetition": {"repetition_penalty": 1.7},
    "all": {
        "temperature": 1.4,
        "top_k": 40,
        "top_p": 0.8,
        "min_p": 0.04,
        "repetition_penalty": 1.2,
    },
}


@pytest.mark.parametrize("sampling", CASES.values(), ids=CASES)
def test_inverse_cdf_of_what_transformers_computes(sampling: dict[str, float]) -> None:
    """Every draw is the token at which the reference's cumulative distribution passes u."""
    num_draws = 300
    logits = _logits(1, seed=3)
    rows = [
        _row(prompt=(1, 2, 3), output=(7, 8), seed=seed, **sampling) for seed in range(num_draws)
    ]
    cumulative = _reference_probabilities(logits[0], rows[0]).cumsum(-1)
    u = torch.from_numpy(uniforms(range(num_draws), [5] * num_draws))
    expected = torch.searchsorted(cumulative, u, right=True).tolist()
    drawn = _tokens(sample(logits.repeat(num_draws, 1), rows))
    # float32 in transformers moves a boundary by some 1e-7: allow one draw to fall between.
    assert sum(a != b for a, b in zip(drawn, expected, strict=True)) <= 1


@pytest.mark.parametrize("sampling", CASES.values(), ids=CASES)
def test_frequencies_follow_the_reference(sampling: dict[str, float]) -> None:
    """Chi-square of 20,000 draws from a small vocabulary."""
    num_draws, vocab_size = 20_000, 24
    logits = _logits(1, seed=5, vocab_size=vocab_size) / 2
    rows = [_row(prompt=(1, 2), output=(3,), seed=seed, **sampling) for seed in range(num_draws)]
    probabilities = _reference_probabilities(logits[0], rows[0]).numpy()
    drawn = _tokens(sample(logits.repeat(num_draws, 1), rows))
    observed = np.bincount(drawn, minlength=vocab_size)
    assert observed[probabilities == 0].sum() == 0
    common = probabilities * num_draws > 5
    expected = probabilities[common] * num_draws
    chi_square = float(((observed[common] - expected) ** 2 / expected).sum())
    freedom = max(1, int(common.sum()) - 1)
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4


def test_top_k_and_top_p_keep_equals() -> None:
    logits = torch.full((2, 64), -5.0)
    logits[:, [3, 9, 20, 40]] = 1.0
    for sampling in ({"top_k": 2}, {"top_p": 0.3}):
        rows = [_row(seed=seed, **sampling) for seed in range(200)]
        assert set(_tokens(sample(logits[:1].repeat(200, 1), rows))) == {3, 9, 20, 40}


def test_tiny_temperature_is_greedy() -> None:
    logits = _logits(4)
    rows = [_row(temperature=1e-300, seed=seed) for seed in range(4)]
    assert _tokens(sample(logits, rows)) == logits.argmax(-1).tolist()


# --- rows that cannot get a token -------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_fail_their_row_only(value: float, temperature: float) -> None:
    logits = _logits(3)
    rows = [_row(temperature=temperature, top_k=5, top_p=0.9, logprobs=2) for _ in range(3)]
    healthy = sample(logits, rows)
    logits[1, 100] = value
    results = sample(logits, rows)
    assert results[1].error is not None
    assert "not finite" in results[1].error
    assert (results[0], results[2]) == (healthy[0], healthy[2])


def test_minus_infinity_is_a_token_that_cannot_be_chosen() -> None:
    logits = torch.full((1, VOCAB_SIZE), -math.inf)
    logits[0, [8, 9]] = 0.0
    rows = [_row(seed=seed) for seed in range(20)]
    assert set(_tokens(sample(logits.repeat(20, 1), rows))) == {8, 9}
    assert sample(torch.full((1, VOCAB_SIZE), -math.inf), [_row()])[0].error is not None


def test_a_row_with_everything_excluded_says_so() -> None:
    rows = [replace(_row(), token_mask=_mask([])), _row()]
    excluded, fine = sample(_logits(2), rows)
    assert excluded.error is not None
    assert "grammar" in excluded.error
    assert fine.error is None


def test_penalties_that_overflow_say_so() -> None:
    row = _row(output=(3,), repetition_penalty=1e-38)
    result = sample(torch.full((1, VOCAB_SIZE), 50.0), [row])[0]
    assert result.error is not None
    assert "Penalties" in result.error
