from __future__ import annotations

import pytest

from novacron.bench.speculation_rounds import OFF, Batch, Round, goals_of, metrics_of


def batch(
    wall_s: float, *answers: tuple[int, ...], num_drafts: int = 0, num_right: int = 0
) -> Batch:
    return Batch(
        answers=answers or ((1, 2, 3), (4, 5, 6)),
        wall_s=wall_s,
        num_steps=3,
        num_draft_tokens=num_drafts,
        num_accepted_tokens=num_right,
        draft_time_s=wall_s / 4,
    )


def test_ratios_are_taken_within_a_round() -> None:
    rounds: list[Round] = [
        {OFF: batch(1.0), "ngram": batch(0.5, num_drafts=4, num_right=3)},
        {OFF: batch(4.0), "ngram": batch(2.0)},
    ]
    metrics = metrics_of("ngram", rounds)
    assert metrics["ratio"].samples == (2.0, 2.0)
    assert metrics["output_rate"].samples == (12.0, 3.0)
    assert metrics["tokens_per_step"].samples == (2.0, 2.0)
    assert metrics["right"].samples == (0.75,), "the round without guesses says nothing"
    assert metrics["drafting"].samples == (0.25, 0.25)
    assert "right" not in metrics_of(OFF, rounds)


def test_an_answer_that_changes_misses_a_goal() -> None:
    same: Round = {OFF: batch(1.0), "ngram": batch(1.0)}
    changed: Round = {OFF: batch(1.0), "ngram": batch(1.0, (1, 2, 3), (4, 5))}
    assert goals_of({1: [same]})[0].met
    goal = goals_of({1: [same], 2: [same, changed]})[0]
    assert (goal.value, goal.met) == (1, False)


def test_the_goal_of_speed_is_for_the_most_streams() -> None:
    fast: Round = {OFF: batch(1.0), "ngram": batch(0.5)}
    slow: Round = {OFF: batch(1.0), "ngram": batch(1.25)}
    [_, goal] = goals_of({1: [fast], 16: [slow]})
    assert (goal.value, goal.met) == (pytest.approx(0.8), False)
    assert goals_of({1: [slow], 16: [fast]})[1].met
