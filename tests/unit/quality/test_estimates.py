from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.quality.document import DocumentScores
from novacron.quality.estimates import estimate_quality, quality_by_context


def document(
    losses: list[float], *, first: int = 1, agrees: bool = True, base: float = 1.0
) -> DocumentScores:
    """A variant that loses this much at each token."""
    count = len(losses)
    return DocumentScores(
        first,
        (base,) * count,
        tuple(base + loss for loss in losses),
        tuple(abs(loss) for loss in losses),
        (agrees,) * count,
        tuple(10 * abs(loss) for loss in losses),
    )


documents = st.lists(
    st.builds(
        document,
        st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8),
        first=st.integers(1, 40),
        agrees=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def test_means_are_over_tokens_not_over_documents() -> None:
    found = estimate_quality([document([0.3]), document([0.0, 0.0])])
    assert found.nll_difference.value == pytest.approx(0.1)
    assert found.quality.value == pytest.approx(math.exp(-0.1))
    assert found.kl.value == pytest.approx(0.1)
    assert (found.num_documents, found.num_tokens) == (2, 3)
    assert found.largest_logit_error.value == pytest.approx(1.5)
    assert found.logit_error_of_all == pytest.approx(3.0)


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token"):
        estimate_quality([document([])])


@given(documents)
def test_intervals_hold_their_value_and_quality_is_that_of_the_difference(
    scores: list[DocumentScores],
) -> None:
    found = estimate_quality(scores)
    for one in (found.nll_difference, found.quality, found.kl, found.top1_agreement):
        assert one.low <= one.high
    assert found.quality.value == pytest.approx(math.exp(-found.nll_difference.value))
    assert found.quality.low == pytest.approx(math.exp(-found.nll_difference.high))
    assert 0 <= found.top1_agreement.low <= found.top1_agreement.high <= 1


@given(documents)
def test_contexts_share_out_all_tokens(scores: list[DocumentScores]) -> None:
    by_context = quality_by_context(scores, (4, 16, 64))
    assert sum(one.num_tokens for one in by_context.values()) == estimate_quality(scores).num_tokens


def test_a_token_counts_for_what_stands_before_it() -> None:
    # judged tokens at positions 3, 4, 5: so many stand before each
    by_context = quality_by_context([document([0.1, 0.2, 0.4], first=3)], (4, 8, 16))
    assert {most: one.num_tokens for most, one in by_context.items()} == {4: 2, 8: 1}
    assert by_context[4].nll_difference.value == pytest.approx(0.15)
    assert by_context[8].nll_difference.value == pytest.approx(0.4)


def test_pairs_tell_a_loss_that_is_far_smaller_than_the_spread_of_texts() -> None:
    rng = random.Random(0)
    scores = [document([0.01 + rng.gauss(0, 0.01)] * 5, base=rng.uniform(0, 5)) for _ in range(100)]
    found = estimate_quality(scores)
    assert found.nll_difference.low > 0
    assert found.reference_nll.high - found.reference_nll.low > 0.1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        offsets = rng.normal(0.02, 0.05, size=60)  # shared by the tokens of a document
        scores = [
            document(list(offset + rng.normal(0, 0.02, size=int(rng.integers(1, 9)))))
            for offset in offsets
        ]
        found = estimate_quality(scores).nll_difference
        covered += found.low <= 0.02 <= found.high
    assert 88 <= covered <= 99


def test_full_agreement_in_few_documents_is_not_certain() -> None:
    few, many = ([document([0.0] * 50)] * count for count in (5, 500))
    assert estimate_quality(few).top1_agreement.low == pytest.approx(5 / (5 + 3.8415), abs=1e-4)
    assert estimate_quality(many).top1_agreement.low > 0.99
