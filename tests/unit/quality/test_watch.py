from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.quality.document import DocumentScores
from novacron.quality.watch import QualityRecord, Turns, is_sampled


def answer(loss: float, error: float = 1.0, count: int = 4) -> DocumentScores:
    """One that loses this much at each token."""
    return DocumentScores(
        1, (1.0,) * count, (1.0,) * count, (loss,) * count, (True,) * count, (error,) * count
    )


def quality_of(record: QualityRecord) -> float:
    assert record.quality is not None
    return record.quality


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_about_the_share_is_sampled_and_always_the_same(share: float) -> None:
    ids = [f"request-{number}" for number in range(4000)]
    sampled = [one for one in ids if is_sampled(one, share)]
    assert sampled == [one for one in ids if is_sampled(one, share)]
    assert abs(len(sampled) - 4000 * share) <= 4 * math.sqrt(4000 * share * (1 - share))


@given(
    st.lists(st.tuples(st.floats(0.0001, 0.1), st.floats(0.0001, 0.5)), min_size=50, max_size=300)
)
def test_a_busy_engine_gives_less_than_its_share(steps: list[tuple[float, float]]) -> None:
    """Whatever steps and passes take: what was spent is paid for by time before the next pass."""
    turns = Turns(busy_share=0.01)
    now_s = spent_s = last_s = 0.0
    for step_s, pass_s in steps:
        now_s += step_s
        if turns.is_due(now_s, is_idle=False):
            assert spent_s - last_s <= 0.01 * now_s + 1e-9
            turns.spent(pass_s)
            now_s += pass_s
            spent_s, last_s = spent_s + pass_s, pass_s


def test_an_engine_that_has_been_idle_for_a_while_gives_all_its_time() -> None:
    turns = Turns(settled_s=0.5)
    turns.is_due(0.0, is_idle=False)
    turns.spent(0.4)
    due = {now: turns.is_due(now, is_idle=True) for now in (1.0, 1.2, 1.4, 1.5, 1.9)}
    assert due == {1.0: False, 1.2: False, 1.4: False, 1.5: True, 1.9: True}
    for now_s in range(2, 7):
        assert turns.is_due(float(now_s), is_idle=True)
        turns.spent(0.9)
    assert not turns.is_due(7.0, is_idle=False), "a request has come"
    assert not turns.is_due(7.1, is_idle=True), "and has gone, a moment ago"


def test_gaps_between_requests_count_as_busy() -> None:
    turns = Turns(busy_share=0.01, settled_s=0.5)
    passes = 0
    for step in range(10_000):
        if turns.is_due(step * 0.01, is_idle=step % 10 != 0):
            turns.spent(0.01)
            passes += 1
    assert 90 <= passes <= 110  # of 10 ms in 100 s


def test_a_busy_engine_gives_something() -> None:
    turns = Turns(busy_share=0.01)
    passes = 0
    for step in range(10_000):
        if turns.is_due(step * 0.01, is_idle=False):
            turns.spent(0.01)
            passes += 1
    assert 90 <= passes <= 110  # of 10 ms in 100 s


def test_figures_are_means_over_tokens() -> None:
    record = QualityRecord(floor=0.9)
    assert record.stats(0, 0.0).quality is None
    record.observe(answer(0.3, count=1))
    record.observe(answer(0.0, count=2))
    stats = record.stats(num_dropped=3, seconds=1.5)
    assert stats.quality == pytest.approx(math.exp(-0.1))
    assert (stats.kl, stats.top1_agreement) == (pytest.approx(0.1), 1.0)
    assert (stats.num_scored, stats.num_dropped, stats.seconds) == (2, 3, 1.5)


def test_a_variant_that_likes_its_own_answers_better_is_not_the_better_for_it() -> None:
    record = QualityRecord(floor=0.9)
    record.observe(DocumentScores(1, (9.0,), (0.1,), (0.2,), (False,), (1.0,)))
    assert record.quality == pytest.approx(math.exp(-0.2))


def test_below_the_floor_there_is_one_alert_until_quality_has_recovered() -> None:
    record = QualityRecord(floor=0.95)
    alerts = [alert for _ in range(40) for alert in record.observe(answer(0.1))]
    assert len(alerts) == 1
    assert "quality is 0.9048, below the floor of 0.95" in alerts[0]
    assert record.stats(0, 0.0).is_alarmed
    while quality_of(record) < 0.955:  # above the floor, and not by much
        assert record.observe(answer(0.0)) == []
    assert record.is_below_floor
    while quality_of(record) < 0.97:
        assert record.observe(answer(0.0)) == []
    assert not record.is_below_floor
    again = [alert for _ in range(200) for alert in record.observe(answer(0.1))]
    assert len(again) == 1
    assert record.num_alerts == 2


def test_a_few_bad_answers_say_nothing_of_the_floor() -> None:
    record = QualityRecord(floor=0.95)
    assert [record.observe(answer(1.0)) for _ in range(19)] == [[]] * 19
