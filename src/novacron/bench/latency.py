"""One request at a time: how long until the first token, between tokens, and until the end."""

from __future__ import annotations

import random
from collections.abc import Callable

from novacron.bench import machine, server_metrics
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Row, metric, milliseconds, row
from novacron.bench.scenario import LatencyScenario
from novacron.bench.target import Target, check
from novacron.bench.transcript import Transcript
from novacron.bench.workload import make_prompts

_COLUMNS = (
    Column("ttft", "p50"),
    Column("ttft", "p95"),
    Column("ttft", "p99"),
    Column("tpot", "p50"),
    Column("tpot", "p99"),
    Column("itl", "p99"),
    Column("e2e", "p50"),
    Column("e2e", "stddev"),
)

Case = tuple[int, int]  # prompt and output tokens
Progress = Callable[[str], None]


async def run(target: Target, scenario: LatencyScenario, progress: Progress) -> BenchResult:
    """Cases take turns in random order, so that a slow minute of the machine hits all alike."""
    measurement = Measurement("latency", scenario, target.description)
    cases = [(p, o) for p in scenario.prompt_tokens for o in scenario.output_tokens]
    seen: dict[Case, list[Transcript]] = {case: [] for case in cases}
    await target.client.open_connections(1)
    for case in cases:  # warm-up: what happens only once is no latency
        await _ask(target, case, seed=-1)
    before = await server_metrics.snapshot(target.client)
    with measurement.client_cost():
        for turn in range(scenario.repeats):
            progress(f"round {turn + 1} of {scenario.repeats}")
            order = random.Random(f"{scenario.seed}/{turn}").sample(cases, len(cases))
            for case in order:
                seen[case].append(await _ask(target, case, scenario.seed * 1_000_003 + turn))
    after = await server_metrics.snapshot(target.client)
    everything = [transcript for transcripts in seen.values() for transcript in transcripts]
    return measurement.finish(
        rows=[_row(case, transcripts) for case, transcripts in seen.items()],
        columns=_COLUMNS,
        facts={
            "where a request's time goes (mean ms)": breakdown(before, after, everything),
            "distance to the limit of the machine": _limits(target, cases[0], seen[cases[0]]),
        },
    )


def breakdown(
    before: server_metrics.MetricsSnapshot,
    after: server_metrics.MetricsSnapshot,
    transcripts: list[Transcript],
) -> dict[str, str | float]:
    """Mean milliseconds per component, and which is the largest. Empty without server metrics.

    What the server does not account for is HTTP, the way there and back, and the client.
    """
    parts = server_metrics.request_parts_s(before, after)
    if not parts:
        return {}
    mean_e2e_s = sum(transcript.e2e_s for transcript in transcripts) / len(transcripts)
    parts["http and client"] = mean_e2e_s - sum(parts.values())
    bottleneck = max(parts, key=lambda part: parts[part])
    return {**{part: round(s * 1000, 3) for part, s in parts.items()}, "bottleneck": bottleneck}


async def _ask(target: Target, case: Case, seed: int) -> Transcript:
    prompt_tokens, output_tokens = case
    [prompt] = make_prompts(target.maker, seed, 1, prompt_tokens)
    return check([await target.complete(target.body(prompt, output_tokens))])[0]


def _row(case: Case, transcripts: list[Transcript]) -> Row:
    tpots = [t.tpot_s for t in transcripts if t.tpot_s is not None]
    itls = [itl for t in transcripts for itl in t.itls_s]
    metrics = {
        "ttft": milliseconds([t.ttft_s for t in transcripts]),
        "e2e": milliseconds([t.e2e_s for t in transcripts]),
        "prompt": metric("tokens", "neither", [t.num_prompt_tokens for t in transcripts]),
    }
    if tpots:
        metrics["tpot"] = milliseconds(tpots)
    if itls:
        metrics["itl"] = milliseconds(itls)
    return row({"prompt tokens": case[0], "output tokens": case[1]}, **metrics)


def _limits(target: Target, case: Case, transcripts: list[Transcript]) -> dict[str, float]:
    """For the first case."""
    traffic = target.engine.traffic() if target.engine else None
    tpots = sorted(t.tpot_s for t in transcripts if t.tpot_s)
    if traffic is None or not tpots:
        return {}
    return traffic.utilisation(
        tpots[len(tpots) // 2],
        machine.read_bandwidth_bytes_per_s(),
        num_sequences=1,
        context=case[0] + case[1] / 2,
    )
