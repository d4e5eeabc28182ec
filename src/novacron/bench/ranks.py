"""Several ranks of one model beside one process with as many threads, in turns.

One request at a time: what a long prompt takes until its first token, and each further token. All
engines get the same prompts; ratios are taken within a round. The texts are compared: with native
kernels, ranks must not change a token. Linked ranks are reached over encrypted links on loopback,
as if they were on other hosts: there they would not share cores and memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from novacron.bench.contestants import ThroughClient, engine_client
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Metric, metric, milliseconds, row
from novacron.bench.rounds import turn_order
from novacron.bench.scenario import RanksScenario
from novacron.bench.target import (
    LocalEngine,
    TargetOptions,
    engine_settings,
    local_engine,
    token_prompts,
)
from novacron.bench.transcript import Transcript
from novacron.bench.workload import make_prompts
from novacron.config.engine import RanksApart
from novacron.engine.link.keys import KeyPair, write_key
from novacron.engine.link.rank_supervisor import RankSupervisor, SupervisorConfig
from novacron.errors import ConfigError

ALONE: Final = "one process"
_SIZES: Final = {
    "rows": "context_parallel_size",
    "slices": "tensor_parallel_size",
    "stages": "pipeline_parallel_size",
    "linked rows": "context_parallel_size",
    "linked slices": "tensor_parallel_size",
    "linked stages": "pipeline_parallel_size",
}
_LINKED: Final = "linked"

_COLUMNS = (
    Column("ttft"), Column("ttft", "min"), Column("prefill_speed"), Column("tpot"),
    Column("decode_speed"),
)  # fmt: skip

Round = Mapping[str, Transcript]  # by way


async def run(
    options: TargetOptions, scenario: RanksScenario, progress: Callable[[str], None]
) -> BenchResult:
    _check_ways(scenario)
    engine = _without_tiers(local_engine(options))
    maker = token_prompts(engine.tokenizer())
    found: dict[int, list[Round]] = {size: [] for size in scenario.prompt_tokens}
    async with contextlib.AsyncExitStack() as stack:
        ways = {
            way: await stack.enter_async_context(_engine(engine, way, scenario.ranks, progress))
            for way in (ALONE, *scenario.ways)
        }
        measurement = Measurement(
            "ranks", scenario, {"model": engine.name, "settings": engine_settings(engine.config)}
        )
        with measurement.client_cost():
            for turn in range(-1, scenario.repeats):
                progress("warm-up" if turn < 0 else f"round {turn + 1} of {scenario.repeats}")
                for size, rounds in found.items():
                    [prompt] = make_prompts(maker, scenario.seed * 1_000_003 + turn, 1, size)
                    answers = {}
                    for way in turn_order(list(ways), max(0, turn)):
                        [answers[way]] = await ways[way].run_batch([prompt], scenario.output_tokens)
                    if turn >= 0:
                        rounds.append(answers)
    return measurement.finish(
        rows=[
            row({"way": way, "prompt tokens": size}, **metrics_of(way, rounds))
            for size, rounds in found.items()
            for way in ways
        ],
        columns=_COLUMNS,
        goals=[_goal(found)],
    )


def metrics_of(way: str, rounds: list[Round]) -> dict[str, Metric]:
    """Speeds are in proportion to those of one process, within a round."""
    return {
        "ttft": milliseconds([one[way].ttft_s for one in rounds]),
        "tpot": milliseconds([one[way].tpot_s or 0.0 for one in rounds]),
        "prefill_speed": metric(
            "x", "higher", [one[ALONE].ttft_s / one[way].ttft_s for one in rounds]
        ),
        "decode_speed": metric(
            "x", "higher", [(one[ALONE].tpot_s or 0.0) / (one[way].tpot_s or 1.0) for one in rounds]
        ),
    }


def _goal(found: Mapping[int, list[Round]]) -> Goal:
    differing = sum(
        answer.text != one[ALONE].text
        for rounds in found.values()
        for one in rounds
        for answer in one.values()
    )
    return Goal(name="answers that differ", limit=0, better="lower", value=differing)


def _check_ways(scenario: RanksScenario) -> None:
    if unknown := [way for way in scenario.ways if way not in _SIZES]:
        raise ConfigError(f"There is no way {', '.join(unknown)}; there are {', '.join(_SIZES)}.")


def _without_tiers(engine: LocalEngine) -> LocalEngine:
    """What tiers store after a turn would take time from the next one's engine."""
    cache = replace(engine.config.cache, kv_ram_size=0, kv_disk_size=0)
    return replace(engine, config=replace(engine.config, cache=cache))


@contextlib.asynccontextmanager
async def _engine(
    engine: LocalEngine, way: str, num_ranks: int, progress: Callable[[str], None]
) -> AsyncIterator[ThroughClient]:
    progress(f"loading: {way}")
    with _hosts(engine, way, num_ranks) as apart:
        model: dict[str, Any] = {} if way == ALONE else {_SIZES[way]: num_ranks}
        config = engine.config
        if way.startswith(_LINKED):
            model["num_threads"] = _threads_of_host(engine, num_ranks)
        changed = replace(config, model=replace(config.model, **model), apart=apart)
        async with engine_client(replace(engine, config=changed)) as client:
            yield ThroughClient(client)


@contextlib.contextmanager
def _hosts(engine: LocalEngine, way: str, num_ranks: int) -> Iterator[RanksApart]:
    """Ranks that wait on this machine, if the way needs some."""
    if not way.startswith(_LINKED):
        yield engine.config.apart
        return
    keys, leader = KeyPair.make(), KeyPair.make()
    supervisors = [
        RankSupervisor(
            SupervisorConfig(
                listen="tcp://127.0.0.1:0",
                keys=keys,
                allowed=(leader.public,),
                given={"num_threads": _threads_of_host(engine, num_ranks)},
                log_level="warning",
                log_format="text",
            )
        )
        for _ in range(num_ranks - 1)
    ]
    threads = [threading.Thread(target=one.run, daemon=True) for one in supervisors]
    for thread in threads:
        thread.start()
    try:
        with TemporaryDirectory() as folder:
            key_file = Path(folder) / "link.key"
            write_key(key_file, leader)
            hosts = tuple(one.address for one in supervisors)
            yield RanksApart(hosts=hosts, link_key=str(key_file))
    finally:
        for one in supervisors:
            one.end()
        for thread in threads:
            thread.join()


def _threads_of_host(engine: LocalEngine, num_ranks: int) -> int:
    return max(1, engine.config.model.num_threads // num_ranks)
