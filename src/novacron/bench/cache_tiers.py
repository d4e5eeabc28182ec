"""What KV tiers save: time to first token of a prefix that comes from RAM, from disk after a
restart (its files in the system's memory, or not), from RAM by a warm start, or from Redis where
another server put it, against computing it. On servers of our own, because it takes a small device
and a restart.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from novacron.bench.http_client import HttpClient
from novacron.bench.own_redis import has_redis, redis_settings
from novacron.bench.result import Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import CacheScenario
from novacron.bench.server import own_kv_folder, running_server
from novacron.bench.target import Target, check
from novacron.bench.transcript import Transcript, read_transcript
from novacron.bench.workload import Prompt

_REDIS = "Redis, from another server"
_GOALS: Mapping[str, float] = {"RAM": 0.10, "disk after a restart": 0.20, _REDIS: 0.25}
_GOAL_PREFIX_TOKENS = 2048
_FROM_MEDIUM = "disk after a restart, files not in memory"
_WARMED = "RAM by a warm start, files not in memory"
_STORING_S = 1.0  # a pause, in which stores are done
_WARM_RAM_BYTES = 4 * 2**30  # of which a warm start fills a quarter
_WARMING_S = 3.0  # a pause, in which blocks come to RAM that were used before
_MOST_ROOM_TOKENS = 64  # beside prefix, suffix and output


async def measure(
    target: Target, scenario: CacheScenario, progress: Callable[[str], None]
) -> tuple[list[Row], list[Goal]]:
    """Rows and goals for each length of prefix that the scenario names for tiers."""
    rows: list[Row] = []
    for length in scenario.tier_prefix_tokens:
        progress(f"{length} tokens from RAM")
        rows += _rows(length, "RAM", *await _from_ram(target, scenario, length))
        progress(f"{length} tokens from disk")
        rows += _rows(length, "disk after a restart", *await _from_disk(target, scenario, length))
        progress(f"{length} tokens from the medium of the disk")
        rows += _rows(length, _FROM_MEDIUM, *await _from_medium(target, scenario, length))
        progress(f"{length} tokens by a warm start")
        rows += _rows(length, _WARMED, *await _by_warm_start(target, scenario, length))
        assert target.engine is not None
        if has_redis(target.engine.plan.environment):
            progress(f"{length} tokens from Redis")
            rows += _rows(length, _REDIS, *await _from_redis(target, scenario, length))
    return rows, _goals(rows)


async def _from_ram(
    target: Target, scenario: CacheScenario, length: int
) -> tuple[list[Transcript], list[Transcript]]:
    """A device that holds one request: whatever comes next evicts the prefix from it."""
    room = length + scenario.suffix_tokens + scenario.output_tokens + _MOST_ROOM_TOKENS
    settings = {"MAX_NUM_SEQS": "1", "MAX_MODEL_LEN": str(room), "KV_DISK_SIZE": "0"}
    cold, warm = [], []
    async with _server(target, settings) as client:
        for turn in range(scenario.repeats):
            prefix, other = (_prefix(target, scenario, "ram", length, turn, n) for n in (0, 1))
            cold.append(await _ask(target, scenario, client, prefix, turn))
            await asyncio.sleep(_STORING_S)
            await _ask(target, scenario, client, other, turn)
            warm.append(await _ask(target, scenario, client, prefix, -1 - turn))
    return cold, warm


async def _from_disk(
    target: Target, scenario: CacheScenario, length: int
) -> tuple[list[Transcript], list[Transcript]]:
    """A server computes, and the next one finds; the system may still have the file in memory."""
    prefixes = _prefixes(target, scenario, "disk", length)
    with own_kv_folder() as folder:
        settings = {"KV_RAM_SIZE": "0", "KV_DISK_PATH": folder}
        return await _twice(target, scenario, settings, prefixes)


async def _from_medium(
    target: Target, scenario: CacheScenario, length: int
) -> tuple[list[Transcript], list[Transcript]]:
    prefixes = _prefixes(target, scenario, "medium", length)
    with own_kv_folder() as folder:
        settings = {"KV_RAM_SIZE": "0", "KV_DISK_PATH": folder}
        cold = await _asked(target, scenario, settings, prefixes, (0,))
        _drop_from_memory(Path(folder))
        return cold, await _asked(target, scenario, settings, prefixes, (-1,))


async def _by_warm_start(
    target: Target, scenario: CacheScenario, length: int
) -> tuple[list[Transcript], list[Transcript]]:
    """Each prefix was used once more before the restart, since only what was used is worth it."""
    prefixes = _prefixes(target, scenario, "warm start", length)
    with own_kv_folder() as folder:
        settings = {"KV_DISK_PATH": folder, "KV_PREFETCH": "conservative"}
        cold = await _asked(target, scenario, settings, prefixes, (0, 1))
        _drop_from_memory(Path(folder))
        settings["KV_RAM_SIZE"] = str(_WARM_RAM_BYTES)
        return cold, await _asked(
            target, scenario, settings, prefixes, (-1,), first_pause_s=_WARMING_S
        )


def _drop_from_memory(folder: Path) -> None:
    """Have the system read these files from their medium when they are read next."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


async def _from_redis(
    target: Target, scenario: CacheScenario, length: int
) -> tuple[list[Transcript], list[Transcript]]:
    """A server computes; the next one, which has no tier of its own, has never seen the prefix."""
    assert target.engine is not None
    prefixes = _prefixes(target, scenario, "redis", length)
    with redis_settings(target.engine.plan.environment) as of_redis:
        settings = {"KV_RAM_SIZE": "0", "KV_DISK_SIZE": "0", **of_redis}
        return await _twice(target, scenario, settings, prefixes)


async def _twice(
    target: Target,
    scenario: CacheScenario,
    settings: Mapping[str, str],
    prefixes: Sequence[Prompt],
) -> tuple[list[Transcript], list[Transcript]]:
    """Each prefix asked of one server, and again of the next."""
    cold = await _asked(target, scenario, settings, prefixes, (0,))
    return cold, await _asked(target, scenario, settings, prefixes, (-1,))


async def _asked(
    target: Target,
    scenario: CacheScenario,
    settings: Mapping[str, str],
    prefixes: Sequence[Prompt],
    rounds: Sequence[int],
    first_pause_s: float = 0.0,
) -> list[Transcript]:
    """A new server is asked all prefixes in each round, with questions of the round's own. What it
    answered in the first."""
    answers = []
    async with _server(target, settings) as client:
        await asyncio.sleep(first_pause_s)
        for one in rounds:
            answers.append(
                [
                    await _ask(target, scenario, client, prefix, len(prefixes) * one + turn)
                    for turn, prefix in enumerate(prefixes)
                ]
            )
            await asyncio.sleep(_STORING_S)
    return answers[0]


@asynccontextmanager
async def _server(target: Target, settings: Mapping[str, str]) -> AsyncIterator[HttpClient]:
    """A client of a new server like the target's, after a first request."""
    assert target.engine is not None
    plan = target.engine.plan
    environment = {f"NOVACRON_{name}": value for name, value in settings.items()}
    plan = replace(plan, environment={**plan.environment, **environment})
    async with running_server(plan) as server:
        client = HttpClient(server.url, target.engine.api_key or None)
        try:
            await server.wait_for(client, "/ready")
            await client.open_connections(1)
            first = target.maker.draw(random.Random(0), 32)
            check([await _send(target, client, first, 1)])
            yield client
        finally:
            client.close()


def _prefixes(target: Target, scenario: CacheScenario, kind: str, length: int) -> list[Prompt]:
    return [_prefix(target, scenario, kind, length, turn, 0) for turn in range(scenario.repeats)]


def _prefix(
    target: Target, scenario: CacheScenario, kind: str, length: int, turn: int, number: int
) -> Prompt:
    rng = random.Random(f"cache/{kind}/{scenario.seed}/{length}/{turn}/{number}")
    return target.maker.draw(rng, length)


async def _ask(
    target: Target, scenario: CacheScenario, client: HttpClient, prefix: Prompt, turn: int
) -> Transcript:
    """The prefix with a question of its own."""
    suffix = target.maker.draw(random.Random(f"suffix/{turn}"), scenario.suffix_tokens)
    prompt = target.maker.join(prefix, suffix)
    return check([await _send(target, client, prompt, scenario.output_tokens)])[0]


async def _send(target: Target, client: HttpClient, prompt: Prompt, max_tokens: int) -> Transcript:
    path = "chat/completions" if target.route == "chat" else "completions"
    return read_transcript(await client.post(f"/v1/{path}", target.body(prompt, max_tokens)))


def _rows(length: int, name: str, cold: list[Transcript], warm: list[Transcript]) -> list[Row]:
    shares = [w.ttft_s / c.ttft_s for c, w in zip(cold, warm, strict=True)]
    return [
        row(
            {"prefix tokens": length, "cache": f"cold, then {name}"},
            ttft=milliseconds([t.ttft_s for t in cold]),
            cached=metric("tokens", "neither", [t.num_cached_tokens for t in cold]),
        ),
        row(
            {"prefix tokens": length, "cache": name},
            ttft=milliseconds([t.ttft_s for t in warm]),
            cached=metric("tokens", "neither", [t.num_cached_tokens for t in warm]),
            share_of_cold=metric("", "lower", shares),
        ),
    ]


def _goals(rows: list[Row]) -> list[Goal]:
    return [
        Goal(
            name=f"TTFT with a prefix of {_GOAL_PREFIX_TOKENS} tokens from {name}, share of cold",
            limit=limit,
            better="lower",
            value=one.metrics["share_of_cold"].summary.p50,
        )
        for one in rows
        for name, limit in _GOALS.items()
        if one.labels == {"prefix tokens": _GOAL_PREFIX_TOKENS, "cache": name}
    ]
