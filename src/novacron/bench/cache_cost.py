"""What KV tiers cost where nothing is reused, and how near their copies come to plain ones.

Two engine cores, one without tiers, compute the same new prompts in turns of some steps, the other
one stopped meanwhile, so that a slow moment harms both alike. `share` is of the one without, or of
a plain copy of the same bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from novacron.bench.contestants import bare_core
from novacron.bench.process_turns import in_turns
from novacron.bench.result import Goal, Metric, Row, metric, row
from novacron.bench.rounds import turn_order
from novacron.bench.scenario import CacheScenario
from novacron.bench.server import own_kv_folder
from novacron.bench.target import LocalEngine, token_prompts
from novacron.bench.tier_times import MediumTimes, TierTimes
from novacron.bench.workload import make_prompts
from novacron.errors import EngineDead

_STREAMS: Final = 32
_PROMPT_TOKENS: Final = 64
_OUTPUT_TOKENS: Final = 128
_TURN_S: Final = 0.1
_STORING_S: Final = 0.3  # a pause, in which what is left to store is stored
_GOAL_SHARE: Final = 0.98
_GOAL_OF_PLAIN: Final = 0.7
_HAVE_GOALS: Final = ("RAM", "disk", "disk, to and from the drive")  # others are told
_GOAL_LOOKUP_US: Final = 50.0
_COMMAND: Final = (sys.executable, "-m", "novacron.bench.tier_speed")


async def measure(
    engine: LocalEngine, scenario: CacheScenario, progress: Callable[[str], None]
) -> tuple[list[Row], list[Goal]]:
    rows: list[Row] = []
    goals: list[Goal] = []
    if scenario.throughput_rounds:
        rows, goals = await _throughput(engine, scenario, progress)
    progress("copies to and from RAM and disk")
    more_rows, more_goals = rows_of_copies(await _tier_times())
    return rows + more_rows, goals + more_goals


async def _throughput(
    engine: LocalEngine, scenario: CacheScenario, progress: Callable[[str], None]
) -> tuple[list[Row], list[Goal]]:
    cache = replace(engine.config.cache, kv_ram_size=0, kv_disk_size=0)
    without = replace(engine, config=replace(engine.config, cache=cache))
    maker = token_prompts(engine.tokenizer())
    rates: dict[str, list[float]] = {"on": [], "off": []}
    async with bare_core(engine) as on, bare_core(without) as off:
        cores = (("on", on), ("off", off))
        for turn in range(-1, scenario.throughput_rounds):
            progress(f"without reuse, round {turn + 1} of {scenario.throughput_rounds}")
            seed = scenario.seed * 1_000_003 + turn
            prompts = make_prompts(maker, seed, _STREAMS, _PROMPT_TOKENS)
            order = turn_order(cores, turn)
            batches = [core.run_batch(prompts, _OUTPUT_TOKENS) for _, core in order]
            done, ran_s = await in_turns([core.pid for _, core in order], batches, _TURN_S)
            for (name, _), transcripts, seconds in zip(order, done, ran_s, strict=True):
                if turn >= 0:
                    rates[name].append(sum(t.num_output_tokens for t in transcripts) / seconds)
            await asyncio.sleep(_STORING_S)
    share = metric("", "higher", [on / off for on, off in zip(*rates.values(), strict=True)])
    rows = [
        row({"cache": "nothing reused, without tiers"}, output_rate=_tokens_per_s(rates["off"])),
        row(
            {"cache": "nothing reused, with tiers"},
            output_rate=_tokens_per_s(rates["on"]),
            share=share,
        ),
    ]
    name = "throughput with tiers where nothing is reused, share of that without"
    goal = Goal(name=name, limit=_GOAL_SHARE, better="higher", value=share.summary.p50)
    return rows, [goal]


def _tokens_per_s(rates: Sequence[float]) -> Metric:
    return metric("tok/s", "higher", rates)


async def _tier_times() -> TierTimes:
    """Raises EngineDead if they could not be taken."""
    with own_kv_folder() as folder:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, folder, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise EngineDead("The copies to and from KV tiers failed; their error is above.")
    return msgspec.json.decode(output, type=TierTimes)


def rows_of_copies(times: TierTimes) -> tuple[list[Row], list[Goal]]:
    """What a run of tier_speed tells."""
    rows, goals = [], []
    media = {
        "RAM": times.ram,
        "disk": times.disk,
        "disk, to and from the drive": times.drive,
        "RAM, blocks of 2 MiB": times.large_ram,
        "disk, blocks of 2 MiB": times.large_disk,
        "disk, new files": times.new_files,
        "encrypted disk": times.encrypted_disk,  # a plain copy does not encrypt
    }
    for medium, of_medium in media.items():
        for what, moved_s, plain_s in _pairs(of_medium):
            share = metric("", "higher", [p / m for p, m in zip(plain_s, moved_s, strict=True)])
            rates = [of_medium.num_bytes / seconds / 1e9 for seconds in moved_s]
            rows.append(
                row(
                    {"cache": f"{what}, {medium}"},
                    bandwidth=metric("GB/s", "higher", rates),
                    share=share,
                )
            )
            if medium not in _HAVE_GOALS:
                continue
            name = f"{what} with {medium}, share of a plain copy's bandwidth"
            value = share.summary.p50
            goals.append(Goal(name=name, limit=_GOAL_OF_PLAIN, better="higher", value=value))
    lookup = metric("us", "lower", [seconds * 1e6 for seconds in times.lookup_s])
    rows.append(row({"cache": "index"}, lookup=lookup))
    goals.append(
        Goal(
            name="lookup of 128 blocks in the index",
            limit=_GOAL_LOOKUP_US,
            better="lower",
            value=lookup.summary.p50,
            unit="us",
        )
    )
    return rows, goals


def _pairs(times: MediumTimes) -> tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]:
    return (
        ("store", times.store_s, times.plain_store_s),
        ("load", times.load_s, times.plain_load_s),
    )
