"""novacron bench cache-faults: KV tiers whose processes are killed, and whose server fails.

The disk tier's folder after processes that stored there were killed with SIGKILL at a system call
drawn beforehand, in the middle of a write too (killed_writers.py): with little room, with room for
all, after power cuts, and beside a process that lives on. Then an engine whose Redis server is
slow, cut off, half there, wrong or silent (cache_fault_trials.py).
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from novacron.bench.cache_fault_job import BASELINE, FaultJob, FaultTurn
from novacron.bench.child_process import working_child
from novacron.bench.flaky_proxy import FAULTS
from novacron.bench.killed_writers import Seen
from novacron.bench.measurement import Measurement
from novacron.bench.own_redis import URL, has_redis, redis_settings
from novacron.bench.result import (
    BenchResult,
    Column,
    Goal,
    Metric,
    Row,
    metric,
    milliseconds,
    row,
)
from novacron.bench.scenario import Scenario, option
from novacron.bench.server import own_kv_folder
from novacron.bench.target import LocalEngine, TargetOptions, local_engine, token_prompts
from novacron.errors import EngineDead

_COLUMNS: Final = (
    *(Column(name) for name in ("cycles", "stored", "found", "refused", "wrong", "torn", "lost")),
    Column("of_limit"),
    *(Column(name) for name in ("requests", "failed", "faults", "from_tier")),
    Column("request", "p50"),
    Column("request", "p99"),
)
_LITTLE_ROOM, _ROOM_FOR_ALL = 2**18, 2**24
_SOCKET: Final = "unix://"


@dataclass(frozen=True, kw_only=True)
class CacheFaultsScenario(Scenario):
    kills: int = option(1000, "processes killed where blocks have to make room")
    kills_with_room: int = option(200, "where none has to, so that none may be lost")
    power_cuts: int = option(300, "processes killed, after three in ten of which files are damaged")
    kills_beside: int = option(100, "beside a process that uses the folder all the time")
    rounds: int = option(3, "turns of each fault of Redis with each chance", least=0)
    chances: tuple[float, ...] = option((0.1, 0.5, 1.0), "that an answer is struck", least=0)
    num_prompts: int = option(4, "prompts asked in each turn, one after another")
    prompt_tokens: int = option(400, "length of each")
    output_tokens: int = option(8, "length of each answer")
    device_memory: int = option(6 * 2**20, "KV bytes on the device, less than the prompts take")
    deadline: float = option(0.5, "kv_redis_deadline, in seconds", least=1e-3)


async def run(
    options: TargetOptions, scenario: CacheFaultsScenario, progress: Callable[[str], None]
) -> BenchResult:
    engine = local_engine(options)
    measurement = Measurement("cache-faults", scenario, {"model": engine.name})
    rows, goals = await _killed(scenario, progress)
    if scenario.rounds and _has_own_redis(engine):
        turns = await _turns(engine, scenario, progress)
        more_rows, more_goals = rows_of_turns(turns)
        rows, goals = rows + more_rows, goals + more_goals
    else:
        progress("Redis: left out, there is no server of our own to break")
    return measurement.finish(rows=rows, columns=_COLUMNS, goals=goals)


def _has_own_redis(engine: LocalEngine) -> bool:
    environment = engine.plan.environment
    return not environment.get(URL) and has_redis(environment)


async def _killed(
    scenario: CacheFaultsScenario, progress: Callable[[str], None]
) -> tuple[list[Row], list[Goal]]:
    kinds = (
        ("killed, little room", scenario.kills, _LITTLE_ROOM, ()),
        ("killed, room for all", scenario.kills_with_room, _ROOM_FOR_ALL, ()),
        ("power cuts", scenario.power_cuts, _LITTLE_ROOM, ("--power-cuts",)),
        ("killed beside a neighbour", scenario.kills_beside, 2 * _LITTLE_ROOM, ("--neighbour",)),
    )
    seen = []
    for name, cycles, limit, flags in kinds:
        progress(f"disk: {name}, {cycles} processes")
        seen.append((name, limit, await _kill(cycles, scenario.seed, limit, flags)))
    return rows_of_kills(seen), goals_of_kills(seen)


async def _kill(cycles: int, seed: int, limit: int, flags: Sequence[str]) -> Seen:
    """Raises EngineDead if it did not come to its end."""
    with own_kv_folder() as folder:
        numbers = ("--cycles", str(cycles), "--seed", str(seed), "--limit", str(limit))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "novacron.bench.killed_writers", folder, *numbers, *flags,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise EngineDead("The processes that are killed could not go on; their error is above.")
    return msgspec.json.decode(output, type=Seen)


def rows_of_kills(all_seen: Iterable[tuple[str, int, Seen]]) -> list[Row]:
    """`of_limit` is the most bytes that the folder took, of those it may take."""
    return [
        row(
            {"what": f"disk, {name}"},
            cycles=_count(seen.cycles),
            stored=_count(seen.stored),
            found=_count(seen.found),
            refused=_count(seen.unsound),
            wrong=_count(seen.wrong),
            torn=_count(seen.torn),
            lost=_count(seen.lost),
            of_limit=metric("", "lower", [seen.most_bytes / limit]),
        )
        for name, limit, seen in all_seen
    ]


def goals_of_kills(all_seen: Sequence[tuple[str, int, Seen]]) -> list[Goal]:
    """Blocks may be lost where they have to make room, and after a power cut."""
    of_all = [seen for _, _, seen in all_seen]
    with_room = [seen for _, limit, seen in all_seen if limit == _ROOM_FOR_ALL]
    return [
        _none("disk: blocks handed out that were not what was stored", (s.wrong for s in of_all)),
        _none("disk: torn blocks after a kill", (s.torn for s in of_all)),
        _none("disk: cycles after which it was over its limit", (s.over_limit for s in of_all)),
        _none("disk: stored blocks lost to a kill, with room for all", (s.lost for s in with_room)),
    ]


async def _turns(
    engine: LocalEngine, scenario: CacheFaultsScenario, progress: Callable[[str], None]
) -> list[FaultTurn]:
    maker, rng = token_prompts(engine.tokenizer()), random.Random(f"faults/{scenario.seed}")
    drawn = (maker.draw(rng, scenario.prompt_tokens) for _ in range(scenario.num_prompts))
    faults = (*FAULTS, "refuse")
    num_turns = 1 + scenario.rounds * len(scenario.chances) * len(faults)
    turns = []
    with redis_settings(engine.plan.environment) as redis:
        job = FaultJob(
            model_path=str(engine.model_path),
            settings={
                "kv_ram_size": 0,
                "kv_disk_size": 0,
                "kv_cache_memory": scenario.device_memory,
                "max_model_len": scenario.prompt_tokens + scenario.output_tokens + 64,
                "max_num_seqs": 2,
            },
            redis_socket=redis["KV_REDIS_URL"].removeprefix(_SOCKET),
            deadline_s=scenario.deadline,
            prompts=tuple(tuple(ids) for ids in drawn if not isinstance(ids, str)),
            output_tokens=scenario.output_tokens,
            faults=faults,
            chances=scenario.chances,
            rounds=scenario.rounds,
            seed=scenario.seed,
        )
        async with working_child("novacron.bench.cache_fault_trials", job, engine) as lines:
            for turn in range(num_turns):
                progress(f"Redis: turn {turn} of {num_turns - 1}")
                line = await lines.readline()
                if not line:
                    raise EngineDead("The engine of the benchmark died; its error is above.")
                turns.append(msgspec.json.decode(line, type=FaultTurn))
    return turns


def rows_of_turns(turns: Sequence[FaultTurn]) -> tuple[list[Row], list[Goal]]:
    """`from_tier` is the share of the prompts' tokens that came from Redis of those that did before
    the fault."""
    kinds = dict.fromkeys(turn.fault for turn in turns)
    rows = []
    for kind in kinds:
        of_kind = [turn for turn in turns if turn.fault == kind]
        metrics = {"request": milliseconds([s for turn in of_kind for s in turn.seconds])}
        if kind != BASELINE:
            before = sum(turn.num_cached_before for turn in of_kind)
            cached = sum(turn.num_cached_tokens for turn in of_kind)
            metrics |= {
                "requests": _count(sum(len(turn.seconds) for turn in of_kind)),
                "faults": _count(sum(turn.num_faults for turn in of_kind)),
                "failed": _count(sum(turn.num_failed for turn in of_kind)),
                "wrong": _count(sum(turn.num_wrong for turn in of_kind)),
                "from_tier": metric("", "neither", [cached / max(1, before)]),
            }
        rows.append(row({"what": kind if kind == BASELINE else f"Redis, {kind}"}, **metrics))
    return rows, [
        _none("Redis: requests with wrong tokens", (turn.num_wrong for turn in turns)),
        _none("Redis: requests that failed", (turn.num_failed for turn in turns)),
    ]


def _count(number: int) -> Metric:
    return metric("", "neither", [float(number)])


def _none(name: str, counts: Iterable[int]) -> Goal:
    return Goal(name=name, limit=0.0, better="lower", value=float(sum(counts)))
