"""A part of the calls tells of all of them, without bias."""

from __future__ import annotations

import random
from statistics import fmean, stdev

from hypothesis import given
from hypothesis import strategies as st

from novacron.guardians.sampling import Estimate, Sampler, SamplingRule, uniform

SHARES = st.floats(0.01, 1.0)


@given(SHARES, st.floats(0.0, 2.0), st.floats(0.0, 1.0), SHARES, SHARES)
def test_probabilities_are_bounded_and_risk_is_always_looked_at(
    share: float, risk: float, spent: float, budget: float, floor: float
) -> None:
    rule = SamplingRule(share=share, budget=budget, floor=floor)
    probability = rule.probability(risk, spent)
    assert share * floor <= probability <= 1.0
    assert probability <= rule.probability(min(2.0, risk + 0.5), spent)
    assert rule.probability(1.0, spent) == 1.0


def test_the_same_call_is_always_drawn_alike() -> None:
    rule = SamplingRule(share=0.3)
    first, second = Sampler(rule, "judge"), Sampler(rule, "judge")
    ids = [f"call-{i}" for i in range(100)]
    assert [first.draw(i, 0.0) for i in ids] == [second.draw(i, 0.0) for i in ids]


def test_estimates_are_unbiased_though_risky_calls_are_looked_at_more_often() -> None:
    """Means over many runs, against the truth, within four standard errors of their spread."""
    dice = random.Random(1)
    calls = [(dice.random() ** 3, dice.random()) for _ in range(400)]  # risk, score
    truth = fmean(score for _, score in calls)
    share_of_findings = fmean(risk + score > 1.2 for risk, score in calls)
    scores, findings, errors = [], [], []
    for run in range(200):
        sampler = Sampler(SamplingRule(share=0.1, budget=0.25), f"judge-{run}")
        for i, (risk, score) in enumerate(calls):
            draw = sampler.draw(f"call-{i}", risk)
            if draw.is_chosen:
                sampler.estimate.add(draw, score, is_finding=risk + score > 1.2)
        assert sampler.estimate.mean_score is not None
        assert sampler.estimate.finding_share is not None
        assert sampler.estimate.finding_share_error is not None
        scores.append(sampler.estimate.mean_score)
        findings.append(sampler.estimate.finding_share)
        errors.append(sampler.estimate.finding_share_error)
    assert abs(fmean(scores) - truth) < 4 * stdev(scores) / len(scores) ** 0.5
    assert abs(fmean(findings) - share_of_findings) < 4 * stdev(findings) / len(findings) ** 0.5
    assert 0.5 < fmean(errors) / stdev(findings) < 2.0


def test_a_budget_holds_while_nothing_is_certain() -> None:
    sampler = Sampler(SamplingRule(share=0.5, budget=0.1, floor=0.01), "judge")
    num_chosen = sum(sampler.draw(f"call-{i}", 0.0).is_chosen for i in range(4000))
    assert 0.05 < num_chosen / 4000 < 0.15


def test_a_call_that_could_not_be_looked_at_does_not_count() -> None:
    sampler = Sampler(SamplingRule(share=1.0), "judge")
    draw = sampler.draw("a", 0.0)
    sampler.estimate.add(draw, 0.5, is_finding=False)
    sampler.draw("b", 0.0)
    sampler.take_back()
    assert sampler.estimate.mean_score == 0.5


def test_without_calls_nothing_is_estimated() -> None:
    assert Estimate().mean_score is None


@given(st.text())
def test_uniform_is_a_number_from_0_to_1(text: str) -> None:
    assert 0.0 <= uniform(text) < 1.0
