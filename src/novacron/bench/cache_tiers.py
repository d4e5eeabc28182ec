"""What KV tiers save: time to first token of a prefix that comes from RAM, from disk after a
restart, or from Redis where another server put it, against computing it. On servers of our own,
because it takes a small device and a restart.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

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
_STORING_S = 1.0  # a pause, in which stores are done
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
    prefixes = [
        _prefix(target, scenario, "disk", length, turn, 0) for turn in range(scenario.repeats)
    ]
    with own_kv_folder() as folder:
        settings = {"KV_RAM_SIZE": "0", "KV_DISK_PATH": folder}
        return await _twice(target, scenario, settings, prefixes)


async def _from_redis(
    target: Target, scenario: CacheScenario, length: int
) -> tuple[list[Transcript], list[Transcript]]:
    """A server computes; the next one, which has no tier of its own, has never seen the prefix."""
    assert target.engine is not None
    prefixes = [
        _prefix(target, scenario, "redis", length, turn, 0) for turn in range(scenario.repeats)
    ]
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
    async with _server(target, settings) as client:
        cold = [
            await _ask(target, scenario, client, prefix, turn)
            for turn, prefix in enumerate(prefixes)
        ]
        await asyncio.sleep(_STORING_S)
    async with _server(target, settings) as client:
        warm = [
            await _ask(target, scenario, client, prefix, -1 - turn)
            for turn, prefix in enumerate(prefixes)
        ]
    return cold, warm


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
