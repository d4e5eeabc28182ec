"""Open-loop load: requests arrive when they arrive, whether or not the server keeps up.

Reports what `vllm bench serve` reports, so that results stand side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from novacron.bench.http_client import Exchange
from novacron.bench.measurement import Measurement, plain
from novacron.bench.result import BenchResult, Column, Label, Row, metric, milliseconds, row
from novacron.bench.scenario import ServeScenario
from novacron.bench.target import Target
from novacron.bench.transcript import Transcript, read_transcript
from novacron.bench.workload import (
    PlannedRequest,
    arrivals,
    plan,
    replay,
    shared_prefix_prompts,
)
from novacron.errors import ConfigError, NotReady, RequestFailed

_COLUMNS = (
    Column("successful", "mean"),
    Column("failed", "mean"),
    Column("request_rate", "mean"),
    Column("output_rate", "mean"),
    Column("total_rate", "mean"),
    *(
        Column(name, statistic)
        for name in ("ttft", "tpot", "itl", "e2e")
        for statistic in ("mean", "p50", "p99")
    ),
    Column("lateness", "p99"),
)
_WARM_UP_REQUESTS = 4


@dataclass(frozen=True)
class _Outcome:
    """One request of the load. `late_s`: how much later than planned this client sent it."""

    transcript: Transcript
    late_s: float


async def run(
    target: Target, scenario: ServeScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("serve", scenario, target.description)
    loads = _loads(target, scenario)
    rows = []
    failures: list[str] = []
    warm_up = _planned(target, scenario, rate=float("inf"), seed=-1)[:_WARM_UP_REQUESTS]
    await _run_load(target, warm_up)
    for number, (labels, requests) in enumerate(loads, start=1):
        progress(
            f"load {number} of {len(loads)}: {', '.join(f'{k} {v}' for k, v in labels.items())}"
        )
        with measurement.client_cost():
            outcomes = await _run_load(target, requests)
        rows.append(_row(labels, outcomes))
        failures += [o.transcript.error for o in outcomes if o.transcript.error]
    return measurement.finish(
        rows=rows, columns=_COLUMNS, facts={"first failure": failures[0] if failures else None}
    )


def _loads(
    target: Target, scenario: ServeScenario
) -> list[tuple[dict[str, Label], list[PlannedRequest]]]:
    """One load per rate, each with prompts of its own, so that no rate warms another's prefixes."""
    return [
        (
            {"rate (1/s)": plain(rate)},
            _planned(target, scenario, rate, scenario.seed * 1_000_003 + number),
        )
        for number, rate in enumerate(scenario.rates)
    ]


def _planned(
    target: Target, scenario: ServeScenario, rate: float, seed: int
) -> list[PlannedRequest]:
    if scenario.trace:
        lines = _read_lines(Path(scenario.trace))
        return replay(lines, target.maker, seed, limit=scenario.num_requests, speed=rate)
    prompts = shared_prefix_prompts(
        target.maker,
        seed,
        scenario.num_requests,
        num_prefixes=scenario.num_prefixes,
        prefix_tokens=scenario.prefix_tokens,
        suffix_tokens=scenario.prompt_tokens,
    )
    times = arrivals(
        scenario.seed,
        scenario.num_requests,
        rate,
        burstiness=scenario.burstiness,
        burst_size=scenario.burst_size,
    )
    return plan(prompts, times, scenario.output_tokens)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The trace {path} cannot be read: {error}.") from error


async def _run_load(target: Target, requests: list[PlannedRequest]) -> list[_Outcome]:
    """Send each request at its time; a request that fails is an outcome, not an end."""
    bodies = [target.body(request.prompt, request.max_tokens) for request in requests]
    started_s = time.perf_counter()

    async def send(body: bytes, at_s: float) -> tuple[Exchange, float]:
        due_s = started_s + at_s
        await asyncio.sleep(due_s - time.perf_counter())
        try:
            exchange = await target.record(body)
        except NotReady as error:
            exchange = Exchange(time.perf_counter(), error=str(error))
        return exchange, exchange.started_s - due_s

    sent = await asyncio.gather(
        *(send(body, r.at_s) for body, r in zip(bodies, requests, strict=True))
    )
    return [_Outcome(read_transcript(exchange), late_s) for exchange, late_s in sent]


def _row(labels: dict[str, Label], outcomes: list[_Outcome]) -> Row:
    done = [o.transcript for o in outcomes if o.transcript.ok]
    if not done:
        raise RequestFailed(f"No request succeeded: {outcomes[0].transcript.error}")
    wall_s = max(t.ended_s for t in done) - min(t.started_s for t in done)
    output_tokens = sum(t.num_output_tokens for t in done)
    input_tokens = sum(t.num_prompt_tokens for t in done)
    metrics = {
        "successful": metric("", "higher", [len(done)]),
        "failed": metric("", "lower", [len(outcomes) - len(done)]),
        "duration": metric("s", "lower", [wall_s]),
        "input": metric("tokens", "neither", [input_tokens]),
        "output": metric("tokens", "neither", [output_tokens]),
        "cached": metric("tokens", "neither", [sum(t.num_cached_tokens for t in done)]),
        "request_rate": metric("req/s", "higher", [len(done) / wall_s]),
        "output_rate": metric("tok/s", "higher", [output_tokens / wall_s]),
        "total_rate": metric("tok/s", "higher", [(input_tokens + output_tokens) / wall_s]),
        "ttft": milliseconds([t.ttft_s for t in done]),
        "e2e": milliseconds([t.e2e_s for t in done]),
        "lateness": milliseconds([o.late_s for o in outcomes]),
    }
    tpots = [t.tpot_s for t in done if t.tpot_s is not None]
    itls = [itl for t in done for itl in t.itls_s]
    if tpots:
        metrics["tpot"] = milliseconds(tpots)
    if itls:
        metrics["itl"] = milliseconds(itls)
    return row(labels, **metrics)
