"""novacron bench cache-policy: eviction policies on made-up traces, beside Belady's optimum.

No server and no model: the simulator replays each trace against one tier. A seed makes a trace of
its own; the sizes are shares of the different blocks of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from novacron.bench.chat_oracle import hit_rate_knowing
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.target import TargetOptions
from novacron.cache_simulator.belady import best_hit_rate
from novacron.cache_simulator.replay import Costs, TierConfig, replay
from novacron.cache_simulator.trace import Trace
from novacron.cache_simulator.workloads import WorkloadConfig, make_workload
from novacron.kv_tiers.eviction.choice import PolicyConfig

_PLAIN: Final = ("lru", "lfu", "arc")
_COSTS: Final = Costs(bytes_per_token=1)
_TOLD: Final = {"told the chances": False, "told who returns": True}  # see chat_oracle.py


@dataclass(frozen=True, kw_only=True)
class CachePolicyScenario(Scenario):
    workloads: tuple[str, ...] = option(
        ("chat", "rag", "agent", "mixed", "scan", "loop"), "traces to make"
    )
    policies: tuple[str, ...] = option(("lru", "lfu", "arc", "learned"), "what to compare")
    shares: tuple[float, ...] = option(
        (0.05, 0.2), "sizes of the tier, of all different blocks of a trace", least=0.001
    )
    num_requests: int = option(4000, "requests of a trace")
    repeats: int = option(5, "traces of each workload, one for each seed")


Rates = Mapping[str, list[float]]  # by policy, a hit rate for each seed


async def run(
    options: TargetOptions, scenario: CachePolicyScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("cache-policy", scenario, {"simulated": True})
    rates = await asyncio.to_thread(measure, scenario, progress)
    rows = [
        made
        for (workload, share), by_policy in rates.items()
        for made in _rows(workload, share, by_policy)
    ]
    columns = (
        Column("hit_rate", "mean"),
        Column("of_optimum", "mean"),
        Column("of_best_plain", "mean", 4),
    )
    return measurement.finish(rows=rows, columns=columns, goals=_goals(rates))


def measure(
    scenario: CachePolicyScenario, progress: Callable[[str], None]
) -> dict[tuple[str, float], dict[str, list[float]]]:
    """Hit rates by workload and size."""
    rates: dict[tuple[str, float], dict[str, list[float]]] = {
        (workload, share): {name: [] for name in _names(workload, scenario)}
        for workload in scenario.workloads
        for share in scenario.shares
    }
    for workload in scenario.workloads:
        for seed in range(scenario.seed, scenario.seed + scenario.repeats):
            progress(f"{workload}, seed {seed}")
            config = WorkloadConfig(num_requests=scenario.num_requests, seed=seed)
            trace = make_workload(workload, config)
            for share in scenario.shares:
                num_blocks = max(1, int(trace.num_blocks * share))
                found = rates[workload, share]
                for name in scenario.policies:
                    found[name].append(_hit_rate(trace, num_blocks, name))
                for name in _TOLD.keys() & found.keys():
                    found[name].append(hit_rate_knowing(trace, num_blocks, who=_TOLD[name]))
                found["optimum"].append(best_hit_rate(trace, num_blocks))
    return rates


def _names(workload: str, scenario: CachePolicyScenario) -> tuple[str, ...]:
    told = tuple(_TOLD) if workload == "chat" else ()
    return (*scenario.policies, *told, "optimum")


def _hit_rate(trace: Trace, num_blocks: int, name: str) -> float:
    tier = TierConfig(
        kind="ram",
        capacity_bytes=num_blocks * trace.block_tokens * _COSTS.bytes_per_token,
        policy=PolicyConfig(name=name),  # type: ignore[arg-type]  # which refuses others
        bytes_per_s=1e9,
    )
    return replay(trace, [tier], _COSTS).hit_rate


def _rows(workload: str, share: float, rates: Rates) -> list[Row]:
    rows = []
    for name, hit_rates in rates.items():
        metrics = {"hit_rate": metric("", "higher", hit_rates)}
        if all(rates["optimum"]):
            of_optimum = _ratios(hit_rates, rates["optimum"])
            metrics["of_optimum"] = metric("", "higher", of_optimum)
        plain = _best_plain(rates)
        if name not in ("optimum", *_PLAIN) and plain and all(plain):
            metrics["of_best_plain"] = metric("", "higher", _ratios(hit_rates, plain))
        rows.append(row({"workload": workload, "size": share, "policy": name}, **metrics))
    return rows


def _best_plain(rates: Rates) -> list[float]:
    """For each seed that of the policy which is best with it."""
    return [max(some) for some in zip(*(rates[n] for n in _PLAIN if n in rates), strict=True)]


def _ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    return [value / base for value, base in zip(values, bases, strict=True)]


def _goals(rates: Mapping[tuple[str, float], Rates]) -> list[Goal]:
    """Learned finds what the best plain one does, and nine tenths of what can be found."""
    goals = []
    for (workload, share), by_policy in rates.items():
        if workload not in ("chat", "agent", "mixed") or "learned" not in by_policy:
            continue
        plain = _best_plain(by_policy)
        for of, limit, bases in (
            ("the best plain policy", 1.0, plain),
            ("the optimum", 0.9, by_policy["optimum"]),
        ):
            if bases and all(bases):
                ratios = _ratios(by_policy["learned"], bases)
                mean = round(sum(ratios) / len(ratios), 4)
                name = f"learned of {of}: {workload}, size {share:g}"
                goals.append(Goal(name=name, limit=limit, better="higher", value=mean))
    return goals
