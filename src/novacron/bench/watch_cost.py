"""What the watch takes from requests: an engine with it and one without, in turns.

Both get the same questions by streams that ask one after another, so that scoring would have to
happen beside running work. Between turns the watch is waited for, so that what it computes for one
turn does not take the processor from another.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import psutil

from novacron.bench.contestants import engine_client
from novacron.bench.target import LocalEngine
from novacron.engine.process_client import ProcessClient
from novacron.errors import RequestFailed
from novacron.quality.watch import is_sampled
from novacron.records.output import WatchStats
from novacron.records.request import Request, SamplingParams

Prompt = tuple[int, ...]

_POLL_S = 0.05


@dataclass(frozen=True)
class Turn:
    """`watched_s` is what of `wall_s` the watch computed for, `cpu_s` what the engine's process had
    of the processors."""

    wall_s: float
    cpu_s: float
    num_tokens: int
    watched_s: float

    @property
    def rate(self) -> float:
        return self.num_tokens / self.wall_s


@dataclass
class CostRounds:
    """Of each round, with the watch to without: the ratio of tokens per second, and that of what a
    token took of the processors; and the share of the watched turn in which answers were scored."""

    throughput: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def add(self, watched: Turn, plain: Turn) -> None:
        self.throughput.append(watched.rate / plain.rate)
        self.cpu.append(watched.cpu_s * plain.num_tokens / (plain.cpu_s * watched.num_tokens))
        self.busy.append(watched.watched_s / watched.wall_s)


async def measure_cost(
    engine: LocalEngine,
    share: float,
    rounds: Sequence[Sequence[Prompt]],
    *,
    num_streams: int,
    max_tokens: int,
    progress: Callable[[str], None],
) -> CostRounds:
    """The first round is the warm-up. Raises RequestFailed."""
    found = CostRounds()
    async with (
        engine_client(_watching(engine, share)) as watched,
        engine_client(_watching(engine, 0.0)) as plain,
    ):
        ids = itertools.count()
        for number, prompts in enumerate(rounds):
            progress(f"cost, round {number} of {len(rounds) - 1}")
            order = (watched, plain) if number % 2 else (plain, watched)
            turns = {}
            for client in order:
                turns[client] = await _turn(client, prompts, num_streams, max_tokens, ids, share)
            if number:
                found.add(turns[watched], turns[plain])
    return found


def _watching(engine: LocalEngine, share: float) -> LocalEngine:
    """Without KV tiers: what they store after a turn would take time from the next one's engine."""
    watch = replace(engine.config.watch, quality_watch=share)
    cache = replace(engine.config.cache, kv_ram_size=0, kv_disk_size=0)
    return replace(engine, config=replace(engine.config, watch=watch, cache=cache))


async def _turn(
    client: ProcessClient,
    prompts: Sequence[Prompt],
    num_streams: int,
    max_tokens: int,
    ids: Iterator[int],
    share: float,
) -> Turn:
    before = _stats(client)
    waiting = iter([(f"cost-{next(ids)}", prompt) for prompt in prompts])
    num_tokens = num_sampled = 0

    async def stream() -> None:
        nonlocal num_tokens, num_sampled
        for request_id, prompt in waiting:
            num_tokens += await _answer(client, request_id, prompt, max_tokens)
            num_sampled += is_sampled(request_id, share)

    cpu_s, started_s = _cpu_s(client), time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(num_streams)))
    wall_s, cpu_s = time.perf_counter() - started_s, _cpu_s(client) - cpu_s
    watched_s = _stats(client).seconds - before.seconds
    if client.stats.watch is not None:
        await _settled(client, before, num_sampled)
    return Turn(wall_s, cpu_s, num_tokens, watched_s)


def _cpu_s(client: ProcessClient) -> float:
    """Of the engine's process so far, all its threads."""
    return sum(psutil.Process(client.engine_pid).cpu_times()[:2])


async def _settled(client: ProcessClient, before: WatchStats, num_sampled: int) -> None:
    """Until all sampled answers are scored or dropped."""
    seen = before.num_scored + before.num_dropped
    while True:
        now = _stats(client)
        if now.num_scored + now.num_dropped - seen >= num_sampled:
            return
        await asyncio.sleep(_POLL_S)


def _stats(client: ProcessClient) -> WatchStats:
    return client.stats.watch or WatchStats()


async def _answer(client: ProcessClient, request_id: str, prompt: Prompt, max_tokens: int) -> int:
    request = Request(
        request_id=request_id,
        prompt_token_ids=prompt,
        sampling=SamplingParams(temperature=0.0, max_tokens=max_tokens, seed=0),
        arrival_time_s=time.monotonic(),
    )
    num_tokens = 0
    async for output in client.generate((request,)):
        if output.error is not None:
            raise RequestFailed(f"A question of the benchmark failed: {output.error}")
        num_tokens = output.num_output_tokens or num_tokens
    return num_tokens
