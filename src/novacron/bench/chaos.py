"""Exact recovery, tried: faults strike a server while clients read, and no client may notice more
than a pause, nor may the server say of itself what is not so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from novacron.bench import server_metrics
from novacron.bench.chaos_calls import count
from novacron.bench.chaos_findings import Journal, RoundRecord, total
from novacron.bench.chaos_rounds import Chaos, Found, kinds_of
from novacron.bench.chaos_site import open_site
from novacron.bench.faults import KILLS
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import ChaosScenario
from novacron.bench.target import TargetOptions, first_model, local_engine

_COLUMNS = (
    Column("pause"),
    Column("pause", "p95"),
    Column("pause", "p99"),
    Column("pause", "count"),
)
_GOAL_PAUSE_S = 10.0
_GOAL_PAUSE_BESIDE_S = 3.0  # with another replica
_GOAL_MISTAKEN_S = 1.0  # about what has ended; patience comes on top for what is silent
_PATIENCE_MARGIN_S = 2.0


async def run(
    options: TargetOptions, scenario: ChaosScenario, progress: Callable[[str], None]
) -> BenchResult:
    local_engine(options)  # refuses a server at a URL, whose processes are not ours to kill
    kinds_of(scenario)
    journal = Journal(
        Path(scenario.journal) if scenario.journal else None,
        {**asdict(scenario), "num_faults": None, "journal": None},
        options.settings,
    )
    async with open_site(options, scenario, progress) as (target, site):
        model = await first_model(target.client)
        measurement = Measurement("chaos", scenario, target.description)
        started_s = time.perf_counter()
        chaos = Chaos(target.client, model, site, scenario, progress, journal)
        found = await chaos.run()
        num_replicas = len((await chaos.status()).get("replicas", ()))
        elapsed_s = time.perf_counter() - started_s
        metrics = await server_metrics.snapshot(target.client)
    rounds = found.rounds
    faults = [kind for record in rounds for kind in record.faults]
    return measurement.finish(
        rows=_rows(rounds),
        columns=_COLUMNS,
        goals=_goals(rounds, num_replicas, scenario),
        facts={
            "kinds_of_calls": chaos.kinds,
            "num_replicas": num_replicas,
            "num_faults": len(faults),
            "faults": {kind: faults.count(kind) for kind in sorted(set(faults))},
            "num_restarts": metrics.total("novacron_engine_restarts_total"),
            "num_calls_under_faults": sum(total(rounds, "outcomes").values()),
            "seconds": round(sum(record.seconds for record in rounds), 1),
            "seconds_of_the_last_part": round(elapsed_s, 1),
            "undisturbed": count(found.undisturbed),
            "under_faults": total(rounds, "outcomes"),
            "unexpected": found.unexpected[:20],
            "looks_at_what_it_says_of_itself": sum(record.num_looks for record in rounds),
            "num_pauses_left_out": sum(record.num_left_out for record in rounds) or None,
        },
    )


def _rows(rounds: Sequence[RoundRecord]) -> list[Row]:
    pauses = [
        row({"what": f"pause after {kind}"}, pause=metric("s", "lower", pauses_s))
        for kind, pauses_s in sorted(total(rounds, "pauses_s").items())
    ]
    mistaken = [
        row({"what": f"called active though {how}"}, pause=metric("s", "lower", seconds))
        for how, seconds in sorted(total(rounds, "mistaken_s").items())
    ]
    return pauses + mistaken


def _goals(rounds: Sequence[RoundRecord], num_replicas: int, scenario: ChaosScenario) -> list[Goal]:
    counted = total(rounds, "outcomes")
    goals = [
        Goal(name=f"calls {name} under faults", limit=0, better="lower", value=counted[name])
        for name in ("lost", "duplicated", "differing")
        if name in counted
    ]
    pauses_s = total(rounds, "pauses_s")
    killed_s = [pause_s for kind in KILLS for pause_s in pauses_s.get(kind, ())]
    all_killed_s = list(pauses_s.get("kill all", ()))
    if num_replicas > 1:
        goals += _pause_goal("another replica is ready", _GOAL_PAUSE_BESIDE_S, killed_s)
        goals += _pause_goal("all were killed", _GOAL_PAUSE_S, all_killed_s)
    else:
        goals += _pause_goal("no other replica", _GOAL_PAUSE_S, killed_s + all_killed_s)
    for how, seconds in sorted(total(rounds, "mistaken_s").items()):
        patience_s = 0 if how == "ended" else scenario.heartbeat_timeout + _PATIENCE_MARGIN_S
        goals.append(
            Goal(
                name=f"called active though {how}, p95",
                limit=_GOAL_MISTAKEN_S + patience_s,
                better="lower",
                value=_p95(seconds),
                unit="s",
            )
        )
    for name, what in (
        ("num_contradictions", "looks at which /ready and the states of replicas disagreed"),
        ("num_called_dead", "looks at which /health gave up what came back"),
    ):
        value = sum(getattr(record, name) for record in rounds)
        goals.append(Goal(name=what, limit=0, better="lower", value=value))
    return goals


def _pause_goal(when: str, limit_s: float, pauses_s: Sequence[float]) -> list[Goal]:
    """None where nothing was killed so."""
    if not pauses_s:
        return []
    name = f"pause of the streams of what was killed, p95, {when}"
    return [Goal(name=name, limit=limit_s, better="lower", value=_p95(pauses_s), unit="s")]


def _p95(samples: Sequence[float]) -> float:
    return sorted(samples)[min(len(samples) - 1, int(0.95 * len(samples)))]


__all__ = ["Chaos", "Found", "run"]
