from __future__ import annotations

import pytest

from novacron.bench.rounds import (
    CORE,
    HTTP,
    PROCESS,
    Batch,
    Round,
    goals_of,
    mean_steps_ms,
    metrics_of,
)
from novacron.bench.transcript import Transcript


def _batch(token_s: float, step_s: float | None = None) -> Batch:
    """Two streams of five tokens, `token_s` apart from the start on."""
    times = tuple(token_s * number for number in range(1, 6))
    transcripts = [
        Transcript(
            started_s=start_s,
            arrivals_s=times,
            e2e_s=times[-1],
            num_output_tokens=5,
            num_prompt_tokens=10,
        )
        for start_s in (100.0, 100.0)
    ]
    return Batch(transcripts, cpu_s=token_s / 2, step_s=step_s)


def _round(core_s: float, process_s: float, http_s: float) -> Round:
    return {CORE: _batch(core_s), PROCESS: _batch(process_s), HTTP: _batch(http_s, step_s=0.015)}


def test_rates_of_a_batch() -> None:
    batch = _batch(0.01)
    assert batch.wall_s == pytest.approx(0.05)
    assert batch.output_rate == pytest.approx(200)
    assert batch.total_rate == pytest.approx(600)
    assert batch.median_tpot_s == pytest.approx(0.01)
    assert batch.mean_step_s == pytest.approx(0.01)


def test_shares_and_added_time_are_taken_within_a_round() -> None:
    rounds = [_round(0.010, 0.011, 0.0125), _round(0.020, 0.022, 0.025)]
    metrics = metrics_of(HTTP, rounds)
    assert metrics["share"].samples == pytest.approx((0.8, 0.8))
    assert metrics["added_per_token"].samples == pytest.approx((2.5, 5.0))
    assert metrics["client"].samples == pytest.approx((0.1, 0.1))
    assert metrics_of(CORE, rounds)["share"].samples == pytest.approx((1, 1))


def test_goals_are_judged_against_both_baselines() -> None:
    share, added, share_of_process, added_to_process = goals_of([_round(0.010, 0.0105, 0.0115)])
    assert (share.value, share.met) == (pytest.approx(0.8696, abs=1e-4), False)
    assert (added.value, added.met) == (pytest.approx(1.5), True)
    assert (share_of_process.value, share_of_process.met) == (pytest.approx(0.913, abs=1e-3), True)
    assert added_to_process.value == pytest.approx(1.0)


def test_http_alone_has_no_share_and_no_goal() -> None:
    rounds: list[Round] = [{HTTP: _batch(0.01)}]
    assert "share" not in metrics_of(HTTP, rounds)
    assert goals_of(rounds) == []


def test_the_servers_own_clock_is_preferred() -> None:
    assert mean_steps_ms([_round(0.010, 0.011, 0.020)]) == {CORE: 10.0, PROCESS: 11.0, HTTP: 15.0}
