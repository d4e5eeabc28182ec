"""What the choice between fetching and computing is said to lose."""

from __future__ import annotations

import pytest

from novacron.bench.cache_choice import CacheChoiceScenario, _joined, _row, goals_of, run
from novacron.bench.cache_choice_job import Trial
from novacron.bench.target import TargetOptions
from novacron.errors import ConfigError


def trial(compute: float, fetch: float, chosen: float, prefix: int = 64) -> Trial:
    times = tuple((seconds,) * 3 for seconds in (compute, fetch, chosen))
    return Trial(prefix, times, (4, 4, 2), (4, 4, 4))


@pytest.mark.parametrize(
    ("chosen", "regret"), [(0.010, 0.0), (0.012, 0.2), (0.040, 3.0)], ids=["best", "near", "worst"]
)
def test_regret_is_over_the_better_of_both(chosen: float, regret: float) -> None:
    for compute, fetch in ((0.010, 0.040), (0.040, 0.010)):
        metrics = _row("ram", trial(compute, fetch, chosen)).metrics
        assert metrics["regret"].summary.p50 == pytest.approx(regret, abs=1e-3)
        assert metrics["of_computing"].summary.p50 == pytest.approx(chosen / compute, abs=1e-3)
        assert metrics["fetched_share"].summary.mean == pytest.approx(10 / 12, abs=1e-3)


def test_the_goal_of_a_tier_is_judged_at_its_worst_length() -> None:
    rows = [
        _row("ram", trial(0.1, 0.01, 0.01)),
        _row("ram", trial(0.1, 0.5, 0.12, prefix=128)),
        _row("disk", trial(0.1, 0.5, 0.1)),
    ]
    ram, disk = goals_of(rows)
    assert (ram.value, ram.met) == (pytest.approx(1.2), False)
    assert (disk.value, disk.met) == (pytest.approx(1.0), True)


def test_prefixes_of_one_length_are_judged_together() -> None:
    joined = _joined([trial(0.1, 0.2, 0.3), trial(0.4, 0.5, 0.6)])
    assert joined.first_token_s[0] == (0.1, 0.1, 0.1, 0.4, 0.4, 0.4)
    assert joined.num_fetched == (4, 4, 2, 4, 4, 2)


async def test_a_kind_that_there_is_not_is_named() -> None:
    with pytest.raises(ConfigError, match="no tier tape"):
        await run(TargetOptions(environment={}), CacheChoiceScenario(tiers=("tape",)), print)


@pytest.mark.slow
async def test_a_whole_run_tries_all_three_ways() -> None:
    scenario = CacheChoiceScenario(
        prefix_tokens=(64, 256), prefixes=1, repeats=2, tiers=("ram", "disk")
    )
    result = await run(TargetOptions(environment={}), scenario, lambda text: None)
    assert [one.labels for one in result.rows] == [
        {"tier": kind, "prefix": length} for kind in ("ram", "disk") for length in (64, 256)
    ]
    assert all(one.metrics["chosen"].summary.count == 2 for one in result.rows)
