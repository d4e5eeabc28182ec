"""The rows and goals of a study of KV codecs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from novacron.bench.kv_codec_job import LevelMeasured
from novacron.bench.result import Better, Column, Goal, Metric, Row, metric, row
from novacron.bench.statistics import paired_share_interval
from novacron.bench.tiered_answers import TieredAnswers
from novacron.quality.estimates import estimate_quality

COLUMNS = (
    Column("ratio"),
    Column("key_error", "mean"),
    Column("value_error", "mean"),
    Column("encode", "p50"),
    Column("decode", "p50"),
    Column("top1", "mean", 5),
    Column("kl", "mean"),
    Column("exact", "mean", 4),
    Column("accuracy", "mean", 4),
    Column("difference", "mean"),
    Column("from_tier", "mean"),
)
_DIGITS = 6
_LEAST_AGREEMENT = 0.99
_MOST_LOST = 0.01  # of the questions
_GOALS_ARE_FOR = ("int8", "int4")

Verdicts = Mapping[str, Sequence[bool]]  # by task


def level_row(one: LevelMeasured) -> Row:
    """Rates are tokens a second of one thread; a copy is what a tier does without a codec."""
    quality = estimate_quality(one.scores)
    copy_s = sorted(one.copy_s)[len(one.copy_s) // 2]

    def rate(times_s: Sequence[float]) -> Metric:
        return metric("tok/s", "higher", [one.num_tokens / time_s for time_s in times_s])

    def share(times_s: Sequence[float]) -> Metric:
        return metric("of a copy", "higher", [copy_s / time_s for time_s in times_s])

    return row(
        {"level": one.level, "of": "blocks"},
        ratio=metric("", "higher", [one.block_bytes / one.encoded_bytes]),
        key_error=metric("", "lower", one.key_errors, digits=_DIGITS),
        value_error=metric("", "lower", one.value_errors, digits=_DIGITS),
        encode=rate(one.encode_s),
        decode=rate(one.decode_s),
        copy=rate(one.copy_s),
        encode_share=share(one.encode_s),
        decode_share=share(one.decode_s),
        top1=_one("higher", quality.top1_agreement.value),
        top1_least=_one("higher", quality.top1_agreement.low),
        kl=metric("mnat", "lower", [quality.kl.value * 1000], digits=_DIGITS),
        judged=_one("neither", quality.num_tokens),
    )


def accuracy_row(level: str, exact: Verdicts, answers: TieredAnswers) -> Row:
    """Of the same questions, pair by pair."""
    first = [verdict for task in exact.values() for verdict in task]
    second = [verdict for task in exact for verdict in answers.verdicts[task]]
    pairs = list(zip(first, second, strict=True))
    lost, gained = (sum(pair == case for pair in pairs) for case in ((True, False), (False, True)))
    interval = paired_share_interval(lost, gained, len(pairs))
    return row(
        {"level": level, "of": f"answers to {len(pairs)} questions"},
        exact=metric("", "higher", list(map(float, first)), keep=len(first)),
        accuracy=metric("", "higher", list(map(float, second)), keep=len(second)),
        difference=_one("higher", (gained - lost) / len(pairs)),
        least=_one("higher", interval.low),
        most=_one("higher", interval.high),
        from_tier=metric("of prompts", "higher", [answers.share_of_prompts]),
        stored_bytes=metric("bytes", "lower", [answers.stored_bytes]),
    )


def goals_of(rows: Sequence[Row]) -> list[Goal]:
    """int8 and int4 have to be as good as exact blocks; the others are told of as they are."""
    goals = []
    for one in rows:
        level = one.labels["level"]
        if level not in _GOALS_ARE_FOR:
            continue
        if "top1" in one.metrics:
            value = one.metrics["top1"].summary.mean
            name = f"likeliest tokens that stay after {level} blocks"
            goals.append(Goal(name=name, limit=_LEAST_AGREEMENT, better="higher", value=value))
        else:
            value = 0.0 - one.metrics["difference"].summary.mean
            name = f"accuracy lost by prompts from an {level} tier"
            goals.append(Goal(name=name, limit=_MOST_LOST, better="lower", value=value))
    return goals


def _one(better: Better, value: float) -> Metric:
    return metric("", better, [value], digits=_DIGITS)
