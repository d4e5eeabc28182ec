"""What rounds of ranks beside one process add up to."""

from __future__ import annotations

import pytest

from novacron.bench.ranks import ALONE, metrics_of, run
from novacron.bench.scenario import RanksScenario
from novacron.bench.target import TargetOptions
from novacron.bench.transcript import Transcript
from novacron.errors import ConfigError


def transcript(first_s: float, gap_s: float) -> Transcript:
    arrivals = tuple(first_s + gap_s * index for index in range(3))
    return Transcript(
        started_s=0.0,
        arrivals_s=arrivals,
        e2e_s=arrivals[-1],
        num_output_tokens=3,
        num_prompt_tokens=100,
    )


def test_speeds_are_ratios_within_a_round() -> None:
    rounds = [
        {ALONE: transcript(1.0, 0.1), "rows": transcript(0.5, 0.2)},
        {ALONE: transcript(3.0, 0.1), "rows": transcript(2.0, 0.1)},
    ]
    found = metrics_of("rows", rounds)
    assert found["prefill_speed"].samples == pytest.approx((2.0, 1.5))
    assert found["decode_speed"].samples == pytest.approx((0.5, 1.0))
    assert metrics_of(ALONE, rounds)["prefill_speed"].samples == (1.0, 1.0)


async def test_a_way_that_is_not_there_is_told_with_those_that_are() -> None:
    scenario = RanksScenario(ways=("columns",))
    with pytest.raises(ConfigError, match="no way columns; there are rows, slices"):
        await run(TargetOptions(environment={}), scenario, lambda text: None)
