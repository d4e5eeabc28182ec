from __future__ import annotations

import msgspec
import pytest

from novacron.gateway.native.cache_advice import findings, trend
from novacron.gateway.native.cache_report import CacheHistory
from novacron.gateway.native.cache_window import CacheSample, CacheWindow, cache_window, halves
from novacron.records.output import EngineStats, SessionStats, TierStats

RAM = TierStats(kind="ram", capacity_bytes=1000, used_bytes=400)
DISK = TierStats(kind="disk", capacity_bytes=9000, used_bytes=5000)
QUIET = EngineStats(num_steps=1, num_blocks=100, kv_tiers=(RAM, DISK))
REPLACE = msgspec.structs.replace


def window(**fields: object) -> CacheWindow:
    """Of a minute that began with QUIET."""
    return cache_window(
        CacheSample(0.0, QUIET), CacheSample(60.0, REPLACE(QUIET, num_steps=9, **fields))
    )


def kinds(of: CacheWindow, earlier: CacheWindow | None = None) -> list[str]:
    return [finding.kind for finding in findings(of, earlier)]


def test_a_window_is_the_difference_of_totals() -> None:
    disk = REPLACE(DISK, hit_tokens=300, loaded_bytes=8000, load_s=0.5, num_loaded=20)
    one = window(
        prefix_queries_tokens=1000,
        prefix_hits_tokens=400,
        num_tier_waits=4,
        tier_wait_s=2.0,
        kv_tiers=(RAM, disk),
        prompt_tokens=600,
        step_time_s=3.0,
    )
    assert (one.seconds, one.prompt_tokens, one.hit_rate) == (60.0, 1000, 0.4)
    assert (one.mean_wait_seconds, one.computed_tokens_per_second) == (0.5, 200.0)
    ram, disk_window = one.tiers
    assert (ram.hit_rate, ram.fullness, ram.bytes_per_second) == (0.0, 0.4, None)
    assert (disk_window.hit_rate, disk_window.bytes_per_second) == (0.3, 16000.0)


def test_an_engine_that_was_restarted_counts_from_zero() -> None:
    before = REPLACE(QUIET, num_steps=500, prefix_queries_tokens=9000, prefix_hits_tokens=9000)
    after = REPLACE(QUIET, num_steps=3, prefix_queries_tokens=100, prefix_hits_tokens=50)
    one = cache_window(CacheSample(0, before), CacheSample(9, after))
    assert (one.prompt_tokens, one.hit_rate) == (100, 0.5)


def test_a_quiet_cache_has_nothing_to_find() -> None:
    one = window()
    assert one.hit_rate is one.mean_wait_seconds is one.session_hit_rate is None
    assert kinds(one) == []


MUCH = {"prefix_queries_tokens": 10_000, "prefix_hits_tokens": 5_000}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("broken_blocks", {"kv_tiers": (RAM, REPLACE(DISK, num_mismatches=1))}),
        ("tier_errors", {"kv_tiers": (RAM, REPLACE(DISK, num_errors=2))}),
        ("device_too_small", {"num_preemptions": 3}),
        (
            "sessions_come_back_cold",
            {"sessions": SessionStats(num_returns=9, return_tokens=900, return_hit_tokens=90)},
        ),
        (
            "ram_too_small",
            {
                **MUCH,
                "kv_tiers": (
                    REPLACE(RAM, used_bytes=990, hit_tokens=500),
                    REPLACE(DISK, hit_tokens=4000),
                ),
            },
        ),
        ("stores_too_slow", {"num_tier_stores_dropped": 50}),
        (
            "loads_slower_than_computing",
            {
                **MUCH,
                "kv_tiers": (RAM, REPLACE(DISK, hit_tokens=5000, load_s=9.0, loaded_bytes=100)),
                "num_tier_waits": 9,
                "tier_wait_s": 9.0,
                "prompt_tokens": 5000,
                "step_time_s": 1.0,
            },
        ),
        ("little_reuse", {"prefix_queries_tokens": 10_000, "prefix_hits_tokens": 100}),
    ],
)
def test_each_bottleneck_shows(kind: str, fields: dict[str, object]) -> None:
    one = window(**fields)
    [finding] = findings(one)
    assert finding.kind == kind
    assert 0 < finding.severity <= 1
    assert finding.evidence
    assert finding.advice


def test_a_fall_of_the_hit_rate_shows_and_a_small_change_does_not() -> None:
    before = window(prefix_queries_tokens=10_000, prefix_hits_tokens=8_000)
    for hits, expected in ((4_000, ["hit_rate_fell"]), (7_500, []), (9_900, [])):
        now = window(prefix_queries_tokens=10_000, prefix_hits_tokens=hits)
        assert kinds(now, before) == expected
    rare = window(prefix_queries_tokens=100, prefix_hits_tokens=50)
    assert kinds(rare, before) == [], "too little to judge by"


def test_the_worst_comes_first() -> None:
    one = window(
        num_preemptions=1,
        kv_tiers=(REPLACE(RAM, num_mismatches=1), DISK),
        prefix_queries_tokens=10_000,
    )
    found = findings(one)
    assert [finding.kind for finding in found] == [
        "broken_blocks", "device_too_small", "little_reuse"
    ]  # fmt: skip
    assert found[0].severity >= found[1].severity >= found[2].severity


def test_trends() -> None:
    assert trend(0.2, 0.5) == "rising"
    assert trend(0.5, 0.2) == "falling"
    assert trend(0.5, 0.55) == "steady"
    assert trend(None, 0.5) == trend(0.5, None) == "unknown"


def test_a_report_has_as_much_of_the_window_as_was_seen() -> None:
    now_s, stats = 0.0, QUIET
    history = CacheHistory(lambda: stats, lambda: now_s)
    for number in range(1, 11):
        now_s = 10.0 * number
        reused = 900 if number <= 5 else 100  # of a thousand tokens every ten seconds
        stats = REPLACE(
            stats,
            num_steps=stats.num_steps + 1,
            prefix_queries_tokens=stats.prefix_queries_tokens + 1000,
            prefix_hits_tokens=stats.prefix_hits_tokens + reused,
        )
        history.sample()
    report = history.report(1000.0)
    assert (report.metrics.seconds, report.metrics.hit_rate) == (100.0, 0.5)
    assert report.trends.hit_rate == "falling"
    assert [finding.kind for finding in report.bottlenecks] == ["hit_rate_fell"]
    assert report.scores.health == pytest.approx(1 - report.bottlenecks[0].severity)
    last = history.report(20.0)
    assert (last.metrics.seconds, last.metrics.hit_rate) == (20.0, 0.1)


def test_before_there_are_samples_nothing_is_known() -> None:
    history = CacheHistory(lambda: QUIET, lambda: 5.0)
    report = history.report(60.0)
    assert report.trends.hit_rate == "unknown"
    assert (report.scores.reuse, report.bottlenecks) == (None, ())
    assert halves([CacheSample(0, QUIET), CacheSample(1, QUIET)]) is None
