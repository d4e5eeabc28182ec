"""What a server of our own takes: memory and processor time of all its processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psutil

from novacron.bench.contestants import OverHttp
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Metric, Row, metric, row
from novacron.bench.scenario import ResourcesScenario
from novacron.bench.server import ServerProcess
from novacron.bench.target import Target
from novacron.bench.workload import make_prompts
from novacron.errors import ConfigError

_COLUMNS = (
    Column("rss"),
    Column("pss"),
    Column("threads"),
    Column("cpu_share"),
    Column("cpu_per_1k_tokens"),
    Column("output_rate"),
)

_MIB = 2**20


@dataclass(frozen=True)
class _Usage:
    """Of one process at one moment."""

    rss_bytes: int
    pss_bytes: int  # memory shared by n processes counts as an n-th
    num_threads: int
    cpu_s: float


Usages = dict[str, _Usage]  # by role


@dataclass(frozen=True)
class _Watch:
    """The processes before and after a stretch of time."""

    wall_s: float
    before: Usages
    after: Usages

    def cpu_s(self, role: str) -> float:
        return self.after[role].cpu_s - self.before[role].cpu_s


async def run(
    target: Target, scenario: ResourcesScenario, progress: Callable[[str], None]
) -> BenchResult:
    if target.server is None:
        raise ConfigError("Resources are read from processes of this machine; leave out --url.")
    measurement = Measurement("resources", scenario, target.description)
    batch_tokens = scenario.num_streams * scenario.output_tokens
    await _run_batch(target, scenario, seed=-1)
    progress("idle")
    idle = await _watch(target.server, asyncio.sleep(scenario.idle_seconds))
    rows = _rows("idle", [idle], num_tokens=0)
    busy = []
    for turn in range(scenario.repeats):
        progress(f"batch {turn + 1} of {scenario.repeats}")
        work = _run_batch(target, scenario, scenario.seed * 1_000_003 + turn)
        busy.append(await _watch(target.server, work))
    rows += _rows("busy", busy, num_tokens=batch_tokens)
    traffic = target.engine.traffic() if target.engine else None
    return measurement.finish(
        rows=rows,
        columns=_COLUMNS,
        facts={
            "weight bytes": traffic.weight_bytes if traffic else None,
            "KV bytes per token": traffic.kv_bytes_per_token if traffic else None,
        },
    )


async def _run_batch(target: Target, scenario: ResourcesScenario, seed: int) -> None:
    prompts = make_prompts(target.maker, seed, scenario.num_streams, scenario.prompt_tokens)
    await OverHttp(target).run_batch(prompts, scenario.output_tokens)


async def _watch(server: ServerProcess, work: Awaitable[None]) -> _Watch:
    before, started_s = _usages(server), time.perf_counter()
    await work
    return _Watch(time.perf_counter() - started_s, before, _usages(server))


def _usages(server: ServerProcess) -> Usages:
    usages: Usages = {}
    for process in server.tree():
        role = "API process" if process.pid == server.pid else "engine process"
        usage = _usage(process)
        usages[role] = _sum(usages[role], usage) if role in usages else usage
    total = next(iter(usages.values()))
    for usage in list(usages.values())[1:]:
        total = _sum(total, usage)
    return {**usages, "together": total}


def _usage(process: psutil.Process) -> _Usage:
    memory, cpu = process.memory_full_info(), process.cpu_times()
    return _Usage(memory.rss, memory.pss, process.num_threads(), cpu.user + cpu.system)


def _sum(first: _Usage, second: _Usage) -> _Usage:
    return _Usage(
        first.rss_bytes + second.rss_bytes,
        first.pss_bytes + second.pss_bytes,
        first.num_threads + second.num_threads,
        first.cpu_s + second.cpu_s,
    )


def _rows(state: str, watches: list[_Watch], num_tokens: int) -> list[Row]:
    """One row per process, memory as it was at the end of each stretch."""
    return [
        row({"process": role, "state": state}, **_metrics(role, watches, num_tokens))
        for role in watches[0].after
    ]


def _metrics(role: str, watches: list[_Watch], num_tokens: int) -> dict[str, Metric]:
    after = [watch.after[role] for watch in watches]
    metrics = {
        "rss": metric("MiB", "lower", [usage.rss_bytes / _MIB for usage in after]),
        "pss": metric("MiB", "lower", [usage.pss_bytes / _MIB for usage in after]),
        "threads": metric("", "lower", [usage.num_threads for usage in after]),
        "cpu_share": metric(
            "of a core", "lower", [watch.cpu_s(role) / watch.wall_s for watch in watches]
        ),
    }
    if num_tokens:
        per_1k = [watch.cpu_s(role) * 1000 / num_tokens for watch in watches]
        metrics["cpu_per_1k_tokens"] = metric("s", "lower", per_1k)
        rates = [num_tokens / watch.wall_s for watch in watches]
        metrics["output_rate"] = metric("tok/s", "higher", rates)
    return metrics
