"""What the bench of the watch makes of scored answers."""

from __future__ import annotations

import random

import pytest

from novacron.bench.watch_job import ScoredAnswer, SliceRates
from novacron.bench.watch_trials import (
    SoundRun,
    case_name,
    cost_goals,
    cost_row,
    goals_of,
    planted_rows,
    sound_row,
)
from novacron.quality.drift import DriftDetector, DriftRule


def answers(rng: random.Random, count: int, mean: float = 0.0) -> list[ScoredAnswer]:
    """One of every twenty requests is scored."""
    return [
        ScoredAnswer(20 * number, rng.gauss(mean, 0.3), 0.001) for number in range(1, count + 1)
    ]


def sound_run(seed: int = 0) -> SoundRun:
    run = SoundRun(DriftDetector(DriftRule()))
    run.feed(answers(random.Random(seed), 400), 8000)
    return run


def test_a_trial_ends_at_the_request_that_raised_the_alarm() -> None:
    run = sound_run()
    trial = run.trial("layers.0", answers(random.Random(1), 20, mean=3.0))
    assert trial.noticed_after == 20 * 7  # each counts as 3 - 0.75, and 14 must be passed
    assert trial.shift == pytest.approx(10, rel=0.1)
    assert trial.kl == pytest.approx(0.001)


def test_trials_do_not_see_each_other() -> None:
    run = sound_run()
    wrong = answers(random.Random(1), 20, mean=3.0)
    first = run.trial("layers.0", wrong)
    assert run.trial("layers.0", wrong) == first
    assert run.trial("layers.1", answers(random.Random(2), 20)).noticed_after is None
    assert not run.detector.is_alarmed


def test_rows_and_goals_say_what_was_noticed() -> None:
    run = sound_run()
    good = run.trial("layers.0", answers(random.Random(1), 20, mean=3.0))
    bad = run.trial("layers.1", answers(random.Random(2), 20))
    rows = planted_rows([good, bad, good], 400)
    assert [row.labels["case"] for row in rows] == ["layers.0", "layers.1"]
    assert [row.metrics["noticed"].summary.mean for row in rows] == [1.0, 0.0]
    assert rows[0].metrics["noticed_after"].samples == (140.0, 140.0)
    assert "noticed_after" not in rows[1].metrics
    alarms, worst = goals_of([run], rows, 400)
    assert (alarms.value, alarms.met) == (0, True)
    assert (worst.value, worst.met) == (0.0, False)
    assert goals_of([run], rows[:1], 400)[1].met


def test_false_alarms_are_counted_over_all_runs() -> None:
    runs = [sound_run(), sound_run(1)]
    runs[1].feed(answers(random.Random(3), 40, mean=3.0), 800)
    assert [run.num_alarms for run in runs] == [0, 1]
    assert not goals_of(runs, [], 400)[0].met
    row = sound_row(runs)
    assert row.metrics["scored"].samples == (400.0, 440.0)
    assert len(row.metrics["figure"].samples) == 840, "all are kept, in their order"
    assert row.metrics["figure"].samples[0] == pytest.approx(runs[0].figures[0], abs=1e-4)


def test_the_cost_is_that_of_all_slices_and_judged_at_the_end_of_its_interval() -> None:
    rare = tuple([100.0] * 9 + [90.0])  # scoring takes much of few slices, and nothing of most
    found = cost_row(SliceRates(rare, (100.0,) * 10, 0.005))
    figures = {name: one.summary.mean for name, one in found.metrics.items()}
    assert figures["throughput"] == 0.99
    assert figures["low"] < 0.99 < figures["high"] <= 1
    assert found.metrics["with_it"].samples == rare
    share, throughput = cost_goals(found)
    assert (share.value, share.met) == (0.005, True)
    assert (throughput.value, throughput.met) == (figures["low"], False)


def test_what_slows_both_slices_of_a_round_is_no_cost() -> None:
    plain = (100.0, 10.0, 1000.0, 50.0)
    found = cost_row(SliceRates(tuple(0.995 * one for one in plain), plain, 0.005)).metrics
    assert found["low"].summary.mean == found["high"].summary.mean == 0.995


def test_cases_are_named_by_what_is_wrong() -> None:
    assert case_name("model.layers.3.", 1.2) == "layers.3 x 1.2"
    assert case_name("model.layers.3.mlp.down_proj", 0.5) == "layers.3.mlp.down_proj x 0.5"
