from __future__ import annotations

import random

import pytest

from novacron.quality.document import DocumentScores
from novacron.quality.drift import DriftDetector, DriftRule


def answer(error: float) -> DocumentScores:
    return DocumentScores(1, (1.0,) * 3, (1.0,) * 3, (0.0,) * 3, (True,) * 3, (error,) * 3)


def answers(rng: random.Random, count: int, shift: float = 0.0) -> list[DocumentScores]:
    """Errors with the spread that those of int8 have, and a longer upper tail."""
    return [
        answer(2.718 ** (-1.06 + shift + rng.gauss(0, 0.2) + rng.expovariate(1) * 0.15))
        for _ in range(count)
    ]


def alarms(detector: DriftDetector, scores: list[DocumentScores]) -> list[int]:
    return [place for place, one in enumerate(scores, start=1) if detector.observe(one)]


@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_usual_answers_raise_no_alarm(seed: int) -> None:
    assert alarms(DriftDetector(), answers(random.Random(seed), 1000)) == []


@pytest.mark.parametrize("seed", range(20))
def test_errors_that_rise_are_noticed_once_within_twenty_answers(seed: int) -> None:
    rng = random.Random(seed)
    detector = DriftDetector()
    assert alarms(detector, answers(rng, 150)) == []
    found = alarms(detector, answers(rng, 60, shift=0.6))
    assert len(found) == 1
    assert found[0] <= 20
    assert detector.is_alarmed


def test_an_alarm_ends_when_errors_are_usual_again_and_can_be_raised_anew() -> None:
    rng = random.Random(7)
    detector = DriftDetector()
    alarms(detector, [*answers(rng, 150), *answers(rng, 20, shift=0.8)])
    assert detector.is_alarmed
    alarms(detector, answers(rng, 300))
    assert not detector.is_alarmed
    assert len(alarms(detector, answers(rng, 20, shift=0.8))) == 1


def test_one_wild_answer_is_no_alarm() -> None:
    rng = random.Random(1)
    detector = DriftDetector()
    alarms(detector, answers(rng, 150))
    assert alarms(detector, [answer(1e6)]) == []
    assert alarms(detector, answers(rng, 100)) == []


def test_a_variant_that_is_its_reference_shows_any_change() -> None:
    detector = DriftDetector(DriftRule(num_usual=10))
    assert alarms(detector, [answer(0.0)] * 100) == []
    assert alarms(detector, [answer(0.001)] * 20) != []
