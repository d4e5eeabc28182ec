"""All benchmarks in order, then the comparison with earlier results; files that can be committed.

Latency, throughput, accuracy and resources; then what the design must prove beside: start-up, the
prefix cache, load that does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic

from novacron.bench import (
    accuracy,
    availability,
    cache,
    cache_choice,
    cache_faults,
    cache_policy,
    chaos,
    fairness,
    gateway,
    guards,
    kv_codecs,
    latency,
    ledger,
    load,
    ranks,
    resources,
    response_cache,
    result,
    routing,
    serve,
    speculation,
    startup,
    throughput,
    watch,
)
from novacron.bench.cache_choice import CacheChoiceScenario
from novacron.bench.cache_faults import CacheFaultsScenario
from novacron.bench.cache_policy import CachePolicyScenario
from novacron.bench.compare import comparison_grids
from novacron.bench.gateway import GatewayScenario
from novacron.bench.ledger_crowd import LedgerScenario
from novacron.bench.report import Grid, goals_grid, markdown
from novacron.bench.response_cache_lookups import ResponseCacheScenario
from novacron.bench.result import BenchResult
from novacron.bench.routing import RoutingScenario
from novacron.bench.scenario import (
    AccuracyScenario,
    AvailabilityScenario,
    CacheScenario,
    ChaosScenario,
    FairnessScenario,
    GuardsScenario,
    KVCodecsScenario,
    LatencyScenario,
    LoadScenario,
    RanksScenario,
    ResourcesScenario,
    S,
    ServeScenario,
    SpeculationScenario,
    StartupScenario,
    ThroughputScenario,
    WatchScenario,
    make_scenario,
)
from novacron.bench.target import Target, TargetOptions, open_target
from novacron.errors import ConfigError

Progress = Callable[[str], None]

_ON_REQUEST = frozenset({"kv-codecs"})  # takes long, and changes with the model only
_SHORTER: Mapping[str, Mapping[str, Any]] = {"accuracy": {"num_examples": 40}}


@dataclass(frozen=True)
class Benchmark(Generic[S]):
    """One benchmark: what is asked, and how it runs on a server it opens and closes itself."""

    help: str
    scenario: type[S]
    run: Callable[[TargetOptions, S, Progress], Coroutine[Any, Any, BenchResult]]


def _on_target(
    run: Callable[[Target, S, Progress], Coroutine[Any, Any, BenchResult]],
) -> Callable[[TargetOptions, S, Progress], Coroutine[Any, Any, BenchResult]]:
    async def on_target(options: TargetOptions, scenario: S, progress: Progress) -> BenchResult:
        progress("starting the server")
        async with open_target(options) as target:
            return await run(target, scenario, progress)

    return on_target


BENCHMARKS: Mapping[str, Benchmark[Any]] = {
    "latency": Benchmark(
        "One request at a time: first token, further tokens, whole answer.",
        LatencyScenario,
        _on_target(latency.run),
    ),
    "throughput": Benchmark(
        "Many streams at once: engine alone, engine process, HTTP.",
        ThroughputScenario,
        throughput.run,
    ),
    "accuracy": Benchmark(
        "Held-out questions to the bundled model, per task.", AccuracyScenario, accuracy.run
    ),
    "resources": Benchmark(
        "Memory and processor time of all processes.", ResourcesScenario, _on_target(resources.run)
    ),
    "startup": Benchmark(
        "Process start to the first token, by phase.", StartupScenario, startup.run
    ),
    "cache": Benchmark(
        "Time to first token with and without a cached prefix.",
        CacheScenario,
        _on_target(cache.run),
    ),
    "cache-policy": Benchmark(
        "Eviction policies on made-up traces, beside the optimum. No server.",
        CachePolicyScenario,
        cache_policy.run,
    ),
    "routing": Benchmark(
        "Many replicas behind one client, some of which die: decisions, hits, losses. No server.",
        RoutingScenario,
        routing.run,
    ),
    "response-cache": Benchmark(
        "Whole answers found again: what a hit takes, and how often similar questions deceive.",
        ResponseCacheScenario,
        response_cache.run,
    ),
    "kv-codecs": Benchmark(
        "KV blocks compressed for tiers: bytes, errors, speed, and what answers lose.",
        KVCodecsScenario,
        kv_codecs.run,
    ),
    "speculation": Benchmark(
        "Tokens per second with guesses and without, on the same questions.",
        SpeculationScenario,
        speculation.run,
    ),
    "serve": Benchmark(
        "Open-loop load at given rates, as vllm bench serve reports it.",
        ServeScenario,
        _on_target(serve.run),
    ),
}

# Beside the suite: these take minutes, and the watch needs weights that are rounded.
BESIDE: Mapping[str, Benchmark[Any]] = {
    "availability": Benchmark(
        "Calls for an hour while something is killed each minute: the share that is answered.",
        AvailabilityScenario,
        availability.run,
    ),
    "cache-choice": Benchmark(
        "Fetching a prefix, computing it, and what the choice between them loses.",
        CacheChoiceScenario,
        cache_choice.run,
    ),
    "cache-faults": Benchmark(
        "The disk tier under kill -9 and power cuts, and a Redis server that fails.",
        CacheFaultsScenario,
        cache_faults.run,
    ),
    "chaos": Benchmark(
        "Faults of all kinds under 32 streams of all kinds: lost, differing, pauses, truth.",
        ChaosScenario,
        chaos.run,
    ),
    "fairness": Benchmark(
        "Tenants beside a loud one, high priority beside a flood of low: shares, first tokens.",
        FairnessScenario,
        fairness.run,
    ),
    "gateway": Benchmark(
        "What keys, quotas and routing add to a request, engines that take no time behind them.",
        GatewayScenario,
        gateway.run,
    ),
    "ledger": Benchmark(
        "Quotas under thousands of calls and killed servers: is the ledger the limit? No server.",
        LedgerScenario,
        ledger.run,
    ),
    "load": Benchmark(
        "Memory that loading takes at its peak, in each precision. No server.",
        LoadScenario,
        load.run,
    ),
    "ranks": Benchmark(
        "Several ranks beside one process with as many threads: first tokens, and further ones.",
        RanksScenario,
        ranks.run,
    ),
    "guards": Benchmark(
        "What guardians add to a chat, what observers add, and leaks over random chunkings.",
        GuardsScenario,
        guards.run,
    ),
    "watch": Benchmark(
        "The watch over quality: false alarms, errors that it notices, what it costs.",
        WatchScenario,
        watch.run,
    ),
}


async def run_suite(
    options: TargetOptions, tables: Mapping[str, Mapping[str, Any]], progress: Progress
) -> list[BenchResult]:
    """Every benchmark, with the scenarios of `tables` where given; some only if they are in them.
    Raises ConfigError at once."""
    if unknown := tables.keys() - BENCHMARKS.keys():
        raise ConfigError(f"There is no benchmark {', '.join(sorted(unknown))}.")
    scenarios = {
        name: make_scenario(one.scenario, {**_SHORTER.get(name, {}), **tables.get(name, {})})
        for name, one in BENCHMARKS.items()
        if name not in _ON_REQUEST or name in tables
    }
    return [
        await BENCHMARKS[name].run(options, scenario, _prefixed(name, progress))
        for name, scenario in scenarios.items()
    ]


def save_all(results: Sequence[BenchResult], folder: Path, baseline: Path | None) -> list[Path]:
    """Write a JSON file and a page per benchmark, and one page for all; return what was written.

    Files are named <theme>_<hardware>_<yyyymm>. The newest results of the same theme and hardware
    in `baseline` are compared with.
    """
    written = []
    comparisons = []
    for one in results:
        stem = _stem(one.benchmark, one)
        if baseline is not None and (earlier := _newest(one, baseline)) is not None:
            comparisons += comparison_grids(earlier, one)
        result.save(one, folder / f"{stem}.json")
        (folder / f"{stem}.md").write_text(markdown(one))
        written += [folder / f"{stem}.json", folder / f"{stem}.md"]
    overview = folder / f"{_stem('suite', results[0])}.md"
    overview.write_text(_overview(results, comparisons))
    return [*written, overview]


def all_goals(results: Sequence[BenchResult]) -> Grid:
    return goals_grid([goal for one in results for goal in one.goals])


def _prefixed(name: str, progress: Progress) -> Progress:
    return lambda text: progress(f"{name}: {text}")


def _stem(theme: str, one: BenchResult) -> str:
    month = datetime.now(UTC).strftime("%Y%m")
    return f"{theme}_{one.environment.hardware.slug}_{month}"


def _newest(like: BenchResult, folder: Path) -> BenchResult | None:
    slug = like.environment.hardware.slug
    files = sorted(folder.glob(f"{like.benchmark}_{slug}_*.json"))
    return result.load(files[-1]) if files else None


def _overview(results: Sequence[BenchResult], comparisons: Sequence[Grid]) -> str:
    first, last = results[0], results[-1]
    hardware = first.environment.hardware
    parts = [
        "# novacron bench suite",
        f"{hardware.cpu_model}, {hardware.num_usable_cpus} CPUs. {first.started_at} to "
        f"{last.ended_at}. Commit {first.environment.commit or 'unknown'}.",
        all_goals(results).markdown(),
    ]
    for grid in comparisons:
        parts += [f"## {grid.title}", grid.markdown()]
    return "\n\n".join(parts) + "\n"
