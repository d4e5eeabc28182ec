"""What the prefix cache saves: time to first token of a prompt whose prefix is, or is not, cached.

Every prefix is new to the server, asked once cold and then warm, so both sides of each pair are
measured seconds apart and nothing of an earlier pair can help. A server of our own is measured with
KV tiers as well (cache_tiers.py), and for what they cost (cache_cost.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from novacron.bench import cache_cost, cache_tiers
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Metric, Row, metric, milliseconds, row
from novacron.bench.scenario import CacheScenario
from novacron.bench.target import Target, check
from novacron.bench.transcript import Transcript
from novacron.bench.workload import Prompt

_COLUMNS = (
    Column("ttft", "p50"),
    Column("ttft", "p99"),
    Column("share_of_cold", "p50"),
    Column("cached", "p50"),
    Column("same_text", "mean"),
    Column("share"),
)
_GOAL_SHARES = {1024: 0.10, 2048: 0.05}  # by tokens of the prefix


@dataclass(frozen=True)
class _Trial:
    """One prefix: asked cold, asked again in the same words, and with another question."""

    cold: Transcript
    repeated: Transcript
    shared: Transcript


async def run(
    target: Target, scenario: CacheScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("cache", scenario, target.description)
    await target.client.open_connections(1)
    trials: dict[int, list[_Trial]] = {length: [] for length in scenario.prefix_tokens}
    for length in trials:
        await _trial(target, scenario, length, turn=-1)
    with measurement.client_cost():
        for turn in range(scenario.repeats):
            progress(f"round {turn + 1} of {scenario.repeats}")
            for length, done in trials.items():
                done.append(await _trial(target, scenario, length, turn))
    rows = [one for length, done in trials.items() for one in _rows(length, done)]
    goals = _goals(rows)
    if target.engine is not None:
        from_tiers, tier_goals = await cache_tiers.measure(target, scenario, progress)
        cost_rows, cost_goals = await cache_cost.measure(target.engine, scenario, progress)
        rows = rows + from_tiers + cost_rows
        goals = goals + tier_goals + cost_goals
    return measurement.finish(rows=rows, columns=_COLUMNS, goals=goals)


async def _trial(target: Target, scenario: CacheScenario, length: int, turn: int) -> _Trial:
    rng = random.Random(f"cache/{scenario.seed}/{length}/{turn}")
    prefix = target.maker.draw(rng, length)
    first, second = (
        target.maker.join(prefix, target.maker.draw(rng, scenario.suffix_tokens)) for _ in range(2)
    )

    async def ask(prompt: Prompt) -> Transcript:
        return check([await target.complete(target.body(prompt, scenario.output_tokens))])[0]

    return _Trial(cold=await ask(first), repeated=await ask(first), shared=await ask(second))


def _rows(length: int, trials: list[_Trial]) -> list[Row]:
    cold = [trial.cold for trial in trials]
    warm = {
        "same prompt": [trial.repeated for trial in trials],
        "same prefix": [trial.shared for trial in trials],
    }
    rows = [row({"prefix tokens": length, "cache": "cold"}, **_metrics(cold))]
    for name, transcripts in warm.items():
        pairs = list(zip(cold, transcripts, strict=True))
        metrics = {
            **_metrics(transcripts),
            "share_of_cold": metric("", "lower", [w.ttft_s / c.ttft_s for c, w in pairs]),
        }
        if name == "same prompt":
            metrics["same_text"] = metric("", "higher", [c.text == w.text for c, w in pairs])
        rows.append(row({"prefix tokens": length, "cache": name}, **metrics))
    return rows


def _metrics(transcripts: list[Transcript]) -> dict[str, Metric]:
    return {
        "ttft": milliseconds([t.ttft_s for t in transcripts]),
        "cached": metric("tokens", "neither", [t.num_cached_tokens for t in transcripts]),
    }


def _goals(rows: list[Row]) -> list[Goal]:
    goals = []
    for one in rows:
        length = one.labels["prefix tokens"]
        if "same_text" in one.metrics:
            goals.append(
                Goal(
                    name=f"same text from a cached prefix of {length} tokens",
                    limit=1.0,
                    better="higher",
                    value=one.metrics["same_text"].summary.mean,
                )
            )
        limit = _GOAL_SHARES.get(int(length))
        if limit is not None and one.labels["cache"] == "same prefix":
            goals.append(
                Goal(
                    name=f"TTFT with a cached prefix of {length} tokens, share of cold",
                    limit=limit,
                    better="lower",
                    value=one.metrics["share_of_cold"].summary.p50,
                )
            )
    return goals
