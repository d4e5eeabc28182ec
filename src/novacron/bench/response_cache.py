"""novacron bench response-cache: what a hit takes, and how often similar questions deceive.

First the cache alone, in each store: key, store, decoding, first piece. Then a server of our own
asked over HTTP: a new question, the same again, the same in other words. Last the labelled
questions, by vectors alone and with the words compared, on the groups that nothing was tuned on.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from novacron.bench import semantic_pairs
from novacron.bench.http_client import HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.own_redis import has_redis, redis_settings
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.target import Target, TargetOptions, open_target, with_settings
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.response_cache.answer import CachedAnswer
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.hash_embedding import hash_embedding
from novacron.response_cache.identity import Key, ModelIdentity, key_of
from novacron.response_cache.memory_store import MemoryStore
from novacron.response_cache.redis_store import RedisStore
from novacron.response_cache.sqlite_store import SqliteStore
from novacron.response_cache.store import AnswerStore
from novacron.response_cache.vector_index import VectorIndex
from novacron.response_cache.wording import same_question

_EXACT_GOAL_MS: Final = 1.0
_SEMANTIC_GOAL_MS: Final = 15.0
_FALSE_HITS_GOAL: Final = 0.01
_LEASTS: Final = (0.85, 0.9, 0.95, 0.99)  # of a cosine, without a look at the words
_BYTES: Final = 1 << 28
_TTL_S: Final = 3600.0
_MODEL: Final = ModelIdentity("bench", "float32", "none", "", "cpu", 1 << 20, ())
_SEMANTIC_HEADER: Final = "x-novacron-cache: semantic\r\n"
_TOPICS: Final = (
    "harbour",
    "violin",
    "glacier",
    "orchard",
    "lantern",
    "compass",
    "meadow",
    "forge",
)

Vectors = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class ResponseCacheScenario(Scenario):
    num_answers: int = option(1000, "answers and questions in the cache")
    num_hits: int = option(500, "lookups that are timed, of each kind")
    prompt_tokens: int = option(512, "length of a prompt")
    answer_tokens: int = option(128, "length of an answer")
    num_questions: int = option(60, "questions that a server is asked: anew, again, and reworded")
    threshold: float = option(0.5, "least cosine", least=-1)


async def run(
    options: TargetOptions, scenario: ResponseCacheScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("response-cache", scenario, {"model": "as --model, or the bundled"})
    rows, goals = list[Row](), list[Goal]()
    async with _stores(options.environment) as stores:
        for name, store in stores.items():
            progress(f"lookups in {name}")
            rows += await _lookups(name, ResponseCache(store, _TTL_S), scenario)
    vectors: dict[str, Vectors] = {}
    for embedding in ("hash", "engine"):
        progress(f"a server, vectors by {embedding}")
        settings = ("response_cache=semantic", f"response_cache_embedding={embedding}")
        async with open_target(with_settings(options, settings)) as target:
            rows += await _over_http(target, embedding, scenario)
            if embedding == "engine":
                vectors["engine"] = await _engine_vectors(target)
    texts = [text for group in semantic_pairs.read_groups() for text in group.questions]
    vectors["hash"] = {text: _unit(hash_embedding(text)) for text in texts}
    progress("labelled questions")
    rows += _rate_rows(vectors, scenario.threshold)
    goals = _goals(rows)
    columns = (
        Column("time", "p50"),
        Column("time", "p99"),
        Column("found", "mean"),
        Column("hits", "mean"),
        Column("false_hits", "mean"),
        Column("false_across", "mean"),
        Column("pairs", "mean"),
    )
    return measurement.finish(rows=rows, columns=columns, goals=goals)


@contextlib.asynccontextmanager
async def _stores(environment: Mapping[str, str]) -> AsyncIterator[dict[str, AnswerStore]]:
    """Redis only where there is one."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="novacron-bench-")))
        stores: dict[str, AnswerStore] = {
            "memory": MemoryStore(_BYTES, time.monotonic),
            "sqlite": SqliteStore(folder / "answers.db", _BYTES, time.time),
        }
        if has_redis(environment):
            settings = stack.enter_context(redis_settings(environment))
            prefix = settings["KV_REDIS_PREFIX"]
            stores["redis"] = RedisStore(settings["KV_REDIS_URL"], prefix, 5.0)
        try:
            yield stores
        finally:
            for store in stores.values():
                await store.flush(None, dry_run=False)
                await store.close()


async def _lookups(name: str, cache: ResponseCache, scenario: ResponseCacheScenario) -> list[Row]:
    index, keys = VectorIndex(), list[Key]()
    partition = ("tenant", b"")
    for number in range(scenario.num_answers):
        request = _request(number, scenario)
        key = key_of("tenant", _MODEL, [request])
        await cache.keep(key, _answer(request, scenario, cache.now_s))
        index.add(partition, hash_embedding(_question(number)), _question(number), key)
        keys.append(key)
    exact, semantic, found = list[float](), list[float](), 0
    for turn in range(scenario.num_hits):
        request = _request(turn % scenario.num_answers, scenario)
        started_s = time.perf_counter()
        answer = await cache.find(key_of("tenant", _MODEL, [request]))
        assert answer is not None
        next(iter(answer.replay([request])))
        exact.append(time.perf_counter() - started_s)
        asked = _reworded(turn % scenario.num_answers)
        started_s = time.perf_counter()
        near = index.search(partition, hash_embedding(asked), scenario.threshold, 16)
        key = next(one.key for one in near if same_question(asked, one.text))
        answer = await cache.find(key)
        semantic.append(time.perf_counter() - started_s)
        found += answer is not None and key == keys[turn % scenario.num_answers]
    return [
        row({"what": f"exact lookup, {name}"}, time=milliseconds(exact)),
        row(
            {"what": f"semantic lookup, {name}, hash"},
            time=milliseconds(semantic),
            found=metric("", "higher", [found / scenario.num_hits]),
        ),
    ]


async def _over_http(target: Target, embedding: str, scenario: ResponseCacheScenario) -> list[Row]:
    """Whole answers, from the writing of the request to the last byte."""
    assert target.server is not None, "a server of our own is measured"
    client = HttpClient(target.server.url, extra_header=_SEMANTIC_HEADER)
    times: dict[str, list[float]] = {"computed": [], "exact hit": [], "semantic hit": []}
    num_same = 0
    for number in range(scenario.num_questions):
        texts = []
        for kind, question in (
            ("computed", _question(number)),
            ("exact hit", _question(number)),
            ("semantic hit", _reworded(number)),
        ):
            body = {
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": 48,
            }
            exchange = await client.post("/v1/chat/completions", msgspec.json.encode(body))
            assert exchange.ok, exchange.body
            times[kind].append(exchange.ended_s - exchange.started_s)
            texts.append(msgspec.json.decode(exchange.body)["choices"][0]["message"]["content"])
        num_same += texts[0] == texts[1] == texts[2]
    share = metric("", "higher", [num_same / scenario.num_questions])
    return [
        row({"what": f"{kind} over HTTP, {embedding}"}, time=milliseconds(taken), found=share)
        for kind, taken in times.items()
    ]


async def _engine_vectors(target: Target) -> Vectors:
    texts = [text for group in semantic_pairs.read_groups() for text in group.questions]
    body = msgspec.json.encode({"input": texts})
    exchange = await target.client.post("/v1/embeddings", body)
    assert exchange.ok, exchange.body
    data = msgspec.json.decode(exchange.body)["data"]
    return {text: one["embedding"] for text, one in zip(texts, data, strict=True)}


def _rate_rows(vectors: Mapping[str, Vectors], threshold: float) -> list[Row]:
    groups = semantic_pairs.held_out(semantic_pairs.read_groups())
    rows = []
    for name, by_text in vectors.items():
        for least in _LEASTS:
            found = semantic_pairs.rates(groups, partial(_near, by_text, least))
            rows.append(_rate_row(f"vectors by {name} alone, cosine {least}", found))
        found = semantic_pairs.rates(groups, partial(_near_and_same, by_text, threshold))
        rows.append(_rate_row(f"vectors by {name}, cosine {threshold:g}, and words", found))
    return rows


def _near(vectors: Vectors, least: float, one: str, other: str) -> bool:
    return math.fsum(x * y for x, y in zip(vectors[one], vectors[other], strict=True)) >= least


def _near_and_same(vectors: Vectors, least: float, one: str, other: str) -> bool:
    return same_question(one, other) and _near(vectors, least, one, other)


def _rate_row(what: str, found: semantic_pairs.Rates) -> Row:
    return row(
        {"what": what},
        hits=metric("", "higher", [found.hits]),
        false_hits=metric("", "lower", [found.false_near]),
        false_across=metric("", "lower", [found.false_across], digits=6),
        pairs=metric("", "neither", [found.num_same + found.num_near]),
    )


def _goals(rows: list[Row]) -> list[Goal]:
    goals = []
    for one in rows:
        what = str(one.labels["what"])
        if what.startswith(("exact lookup", "semantic lookup", "semantic hit")):
            limit = _EXACT_GOAL_MS if what.startswith("exact") else _SEMANTIC_GOAL_MS
            value = one.metrics["time"].summary.p50
            goals.append(Goal(name=what, limit=limit, better="lower", value=value, unit="ms"))
        if what.endswith("and words"):
            value = one.metrics["false_hits"].summary.mean
            name = f"false hits among near misses, {what}"
            goals.append(Goal(name=name, limit=_FALSE_HITS_GOAL, better="lower", value=value))
    return goals


def _request(number: int, scenario: ResponseCacheScenario) -> Request:
    return Request(
        request_id=str(number),
        prompt_token_ids=tuple(
            (number * 31 + place) % 997 for place in range(scenario.prompt_tokens)
        ),
        sampling=SamplingParams(temperature=0.0, max_tokens=scenario.answer_tokens),
        arrival_time_s=0.0,
    )


def _answer(request: Request, scenario: ResponseCacheScenario, now_s: float) -> CachedAnswer:
    """In pieces of eight tokens, as answers are kept."""
    ends = range(8, scenario.answer_tokens + 8, 8)
    pieces = tuple(
        RequestOutput(
            request_id=request.request_id,
            text="eight words or so of an answer, ",
            token_ids=tuple(range(8)),
            finish_reason=FinishReason.STOP if end >= scenario.answer_tokens else None,
            num_prompt_tokens=scenario.prompt_tokens,
            num_output_tokens=end,
        )
        for end in ends
    )
    return CachedAnswer(pieces=pieces, created_s=now_s)


def _question(number: int) -> str:
    return f"What is the story of the {_TOPICS[number % len(_TOPICS)]} number {number}?"


def _reworded(number: int) -> str:
    return f"Please tell me the story of the {_TOPICS[number % len(_TOPICS)]} number {number}."


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector]
