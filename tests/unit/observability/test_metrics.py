from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from novacron.errors import EngineDead
from novacron.observability.call_timer import CallTimer
from novacron.observability.metrics import Histogram, Metrics
from novacron.observability.prometheus import DEFINITIONS, prometheus_text
from novacron.observability.ratios import hit_rate, kv_cache_usage
from novacron.observability.snapshots import EngineSnapshot, VariantSnapshot
from novacron.records.codec_totals import CodecTotals
from novacron.records.latency_counts import LatencyCounts
from novacron.records.output import (
    EngineStats,
    RequestOutput,
    TierStats,
    WatchStats,
    sum_of,
)
from novacron.records.request import FinishReason


def snapshot(stats: EngineStats) -> EngineSnapshot:
    return EngineSnapshot(
        state="ready",
        states=("ready", "dead"),
        stats=stats,
        spec=None,
        num_restarts=0,
        variants=(variant("int8", stats),),
    )


def variant(name: str, stats: EngineStats, **facts: Any) -> VariantSnapshot:
    usual: dict[str, Any] = {"state": "ready", "is_default": True, "num_left": 0}
    return VariantSnapshot(name=name, stats=stats, **{**usual, **facts})


@given(st.lists(st.tuples(st.floats(-1.0, 20.0), st.integers(1, 5)), max_size=50))
def test_a_histogram_counts_what_is_up_to_each_bound(observed: list[tuple[float, int]]) -> None:
    bounds = (0.0, 1.0, 2.5, 10.0)
    histogram = Histogram(bounds)
    for value, times in observed:
        histogram.observe(value, times)
    expected = [sum(n for value, n in observed if value <= bound) for bound in bounds]
    total = sum(n for _, n in observed)
    assert [count for _, count in histogram.cumulative()] == [*expected, total]
    assert histogram.cumulative()[-1][0] == "+Inf"
    assert histogram.count == total
    assert histogram.sum == pytest.approx(sum(value * n for value, n in observed))


def test_every_row_of_the_table_is_in_the_text_under_its_name() -> None:
    text = prometheus_text(Metrics(), snapshot(EngineStats()), "m").decode()
    told = {family.name: family for family in text_string_to_metric_families(text)}
    for definition in DEFINITIONS.values():
        assert told[definition.name].documentation == definition.help
        assert told[definition.name].type == definition.kind


def test_durations_end_in_seconds_and_every_name_has_an_owner() -> None:
    for definition in DEFINITIONS.values():
        assert definition.name.startswith(("vllm:", "llm_", "novacron_"))
        if definition.kind == "histogram" and "tokens" not in definition.name:
            assert definition.name.endswith("_seconds")


def test_engine_totals_come_from_its_stats() -> None:
    stats = EngineStats(
        num_running=3,
        num_blocks=10,
        num_used_blocks=4,
        num_cached_blocks=1,
        prompt_tokens=70,
        prefix_queries_tokens=100,
        prefix_hits_tokens=30,
        generation_tokens=9,
        speculative_method="ngram",
        num_drafts=4,
        num_draft_tokens=12,
        num_accepted_tokens=7,
    )
    text = prometheus_text(Metrics(), snapshot(stats), "m").decode()
    for line in (
        'vllm:num_requests_running{model_name="m"} 3.0',
        'vllm:kv_cache_usage_perc{model_name="m"} 0.4',
        'vllm:prompt_tokens_total{model_name="m"} 100.0',
        'vllm:generation_tokens_total{model_name="m"} 9.0',
        'vllm:spec_decode_num_drafts_total{method="ngram",model_name="m"} 4.0',
        'vllm:spec_decode_num_draft_tokens_total{method="ngram",model_name="m"} 12.0',
        'vllm:spec_decode_num_accepted_tokens_total{method="ngram",model_name="m"} 7.0',
        'llm_cache_hit_rate{cache_level="device",model_name="m"} 0.3',
        'novacron_kv_blocks{kind="free",model_name="m"} 5.0',
        'novacron_engine_state{model_name="m",state="dead"} 0.0',
    ):
        assert line in text.splitlines()


def test_no_quality_is_told_where_none_was_measured() -> None:
    text = prometheus_text(Metrics(), snapshot(EngineStats()), "m").decode()
    assert "llm_quality_score{" not in text


def test_ratios_of_nothing() -> None:
    assert hit_rate(EngineStats()) is None
    assert kv_cache_usage(EngineStats()) == 0.0


def test_a_call_is_timed_per_request_and_per_token() -> None:
    metrics = Metrics()
    arrival_s = time.monotonic() - 1.0
    timer = CallTimer(metrics, arrival_s, 2)
    timer.observe(
        RequestOutput(
            request_id="a", index=0, token_ids=(1,), first_scheduled_time_s=arrival_s + 0.25
        )
    )
    timer.observe(RequestOutput(request_id="a", index=0, token_ids=(2, 3, 4)))
    timer.observe(RequestOutput(request_id="b", index=1, token_ids=(1,)))
    timer.observe(
        RequestOutput(
            request_id="a",
            index=0,
            finish_reason=FinishReason.LENGTH,
            num_prompt_tokens=7,
            num_output_tokens=4,
        )
    )
    assert metrics.first_token.count == 2
    assert metrics.first_token.sum >= 2.0
    assert metrics.inter_token.count == 3
    assert (metrics.queue_time.count, metrics.queue_time.sum) == (1, pytest.approx(0.25))
    assert (metrics.latency.count, metrics.prompt_tokens.sum) == (1, 7)
    assert metrics.generation_tokens.sum == 4
    assert metrics.finished == {"length": 1}


def test_a_failed_call_is_counted_by_its_error() -> None:
    metrics = Metrics()
    CallTimer(metrics, 0.0, 1).fail(EngineDead("gone"))
    assert metrics.errors == {"EngineDead": 1}


def test_a_watch_over_quality_is_told_and_goes_before_an_offline_evaluation() -> None:
    watch = WatchStats(
        num_scored=7, num_dropped=2, num_alerts=1, seconds=0.5, quality=0.99, top1_agreement=0.98,
        kl=0.003, is_alarmed=True,
    )  # fmt: skip
    engine = snapshot(EngineStats(watch=watch))
    text = prometheus_text(Metrics(quality_score=0.5), engine, "m").decode()
    labels = 'model_name="m",variant="int8"'
    for line in (
        f"llm_quality_score{{{labels}}} 0.99",
        f"novacron_top1_agreement{{{labels}}} 0.98",
        f"novacron_kl_nats{{{labels}}} 0.003",
        f"novacron_quality_alarm{{{labels}}} 1.0",
        f"novacron_quality_alerts_total{{{labels}}} 1.0",
        f"novacron_quality_scored_answers_total{{{labels}}} 7.0",
        f"novacron_quality_dropped_answers_total{{{labels}}} 2.0",
        f"novacron_quality_seconds_total{{{labels}}} 0.5",
    ):
        assert line in text.splitlines()
    before = snapshot(EngineStats(watch=WatchStats()))
    text = prometheus_text(Metrics(quality_score=0.5), before, "m").decode()
    assert f"llm_quality_score{{{labels}}} 0.5" in text
    assert "novacron_kl_nats{" not in text


def test_hits_are_told_by_where_they_were_found() -> None:
    tiers = (
        TierStats(
            kind="ram", capacity_bytes=100, used_bytes=40, hit_tokens=10, num_stored=4,
            stored_bytes=64, store_s=0.5,
        ),
        TierStats(
            kind="disk", capacity_bytes=900, hit_tokens=5, num_mismatches=1, load_s=0.25,
            loads=LatencyCounts.of(0.25),
        ),
    )  # fmt: skip
    stats = EngineStats(prefix_queries_tokens=100, prefix_hits_tokens=30, kv_tiers=tiers)
    text = prometheus_text(Metrics(), snapshot(stats), "m").decode()
    for line in (
        'llm_cache_hit_rate{cache_level="device",model_name="m"} 0.15',
        'llm_cache_hit_rate{cache_level="ram",model_name="m"} 0.1',
        'llm_cache_hit_rate{cache_level="disk",model_name="m"} 0.05',
        'novacron_kv_tier_bytes{model_name="m",tier="ram"} 40.0',
        'novacron_kv_tier_blocks_total{event="stored",model_name="m",tier="ram"} 4.0',
        'novacron_kv_tier_blocks_total{event="mismatch",model_name="m",tier="disk"} 1.0',
        'novacron_kv_tier_load_seconds_total{model_name="m",tier="disk"} 0.25',
        'novacron_kv_tier_calls_total{model_name="m",operation="load",tier="disk"} 1.0',
        'novacron_kv_tier_calls_total{model_name="m",operation="lookup",tier="index"} 0.0',
        'novacron_kv_tier_latency_seconds{model_name="m",operation="load",quantile="0.99",tier="disk"}',
        'novacron_kv_tier_stored_bytes_total{model_name="m",tier="ram"} 64.0',
        'novacron_kv_tier_store_seconds_total{model_name="m",tier="ram"} 0.5',
    ):
        assert line in text


def test_what_compression_gains_and_loses_is_told_of_tiers_that_compress() -> None:
    codec = CodecTotals(
        level="int8", num_encoded=4, num_finer=1, raw_bytes=400, encoded_bytes=250, error=0.06,
        worst_error=0.03, encode_s=0.5, decode_s=0.25,
    )  # fmt: skip
    tiers = (
        TierStats(kind="ram", capacity_bytes=100, codec=codec),
        TierStats(kind="disk", capacity_bytes=900),
    )
    stats = EngineStats(kv_tiers=tiers)
    lines = prometheus_text(Metrics(), snapshot(stats), "m").decode().splitlines()
    ram = 'model_name="m",tier="ram"'
    for line in (
        'novacron_kv_tier_compression_ratio{level="int8",model_name="m",tier="ram"} 1.6',
        f"novacron_kv_tier_mean_error{{{ram}}} 0.015",
        f"novacron_kv_tier_worst_error{{{ram}}} 0.03",
        f"novacron_kv_tier_finer_blocks_total{{{ram}}} 1.0",
        f'novacron_kv_tier_codec_seconds_total{{{ram},way="encode"}} 0.5',
        f'novacron_kv_tier_codec_seconds_total{{{ram},way="decode"}} 0.25',
    ):
        assert line in lines
    assert not [line for line in lines if "compression_ratio" in line and "disk" in line]
    summed = sum_of([stats, stats]).kv_tiers[0].codec
    assert summed is not None
    assert (summed.num_encoded, summed.worst_error, summed.ratio) == (8, 0.03, 1.6)
    assert sum_of([stats, stats]).kv_tiers[1].codec is None


def test_variants_are_told_apart_and_summed() -> None:
    coarse = EngineStats(num_running=2, num_waiting=1, generation_tokens=30, num_blocks=8)
    fine = EngineStats(
        num_running=1, generation_tokens=12, num_blocks=8, watch=WatchStats(quality=0.75)
    )
    engine = dataclasses.replace(
        snapshot(sum_of([coarse, fine])),
        variants=(
            variant("int4", coarse, num_left=3, is_default=False),
            variant("none", fine, state="dead"),
        ),
    )
    lines = prometheus_text(Metrics(), engine, "m").decode().splitlines()
    for line in (
        'vllm:num_requests_running{model_name="m"} 3.0',
        'vllm:generation_tokens_total{model_name="m"} 42.0',
        'novacron_variant_requests{model_name="m",variant="int4"} 3.0',
        'novacron_variant_generation_tokens_total{model_name="m",variant="none"} 12.0',
        'novacron_variant_switches_total{model_name="m",variant="int4"} 3.0',
        'novacron_variant_default{model_name="m",variant="int4"} 0.0',
        'novacron_variant_default{model_name="m",variant="none"} 1.0',
        'novacron_variant_state{model_name="m",state="dead",variant="none"} 1.0',
        'llm_quality_score{model_name="m",variant="none"} 0.75',
    ):
        assert line in lines
    assert sum("llm_quality_score{" in line for line in lines) == 1, "int4 has no watch"


def test_tiers_of_variants_are_summed_and_their_shared_folder_counts_once() -> None:
    def tiers(hits: int) -> tuple[TierStats, ...]:
        ram = TierStats(kind="ram", capacity_bytes=100, used_bytes=40, hit_tokens=hits)
        disk = TierStats(kind="disk", capacity_bytes=900, used_bytes=70 + hits, num_stored=hits)
        return ram, disk

    ram, disk = sum_of([EngineStats(kv_tiers=tiers(1)), EngineStats(kv_tiers=tiers(2))]).kv_tiers
    assert (ram.capacity_bytes, ram.used_bytes, ram.hit_tokens) == (200, 80, 3)
    assert (disk.capacity_bytes, disk.used_bytes, disk.num_stored) == (900, 72, 3)
