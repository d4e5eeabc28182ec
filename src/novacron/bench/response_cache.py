"""novacron bench response-cache: what a hit takes, and how often similar questions deceive.

First the cache alone, in each store: key, store, decoding, first piece. Then a server of our own
asked over HTTP: a new question, the same again, the same in other words. Last the labelled
questions, by vectors alone and with the words compared, of the odd groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from novacron.bench import semantic_pairs
from novacron.bench.http_client import HttpClient
from novacron.bench.measurement import Measurement
from novacron.bench.response_cache_lookups import (
    ResponseCacheScenario,
    lookups,
    open_stores,
    question,
    reworded,
)
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.target import Target, TargetOptions, open_target, with_settings
from novacron.response_cache.hash_embedding import hash_embedding
from novacron.response_cache.wording import same_question

_EXACT_GOAL_MS: Final = 1.0
_SEMANTIC_GOAL_MS: Final = 15.0
_FALSE_HITS_GOAL: Final = 0.01
_LEASTS: Final = (0.85, 0.9, 0.95, 0.99)  # of a cosine, without a look at the words
_SEMANTIC_HEADER: Final = "x-novacron-cache: semantic\r\n"

Vectors = Mapping[str, Sequence[float]]


async def run(
    options: TargetOptions, scenario: ResponseCacheScenario, progress: Callable[[str], None]
) -> BenchResult:
    measurement = Measurement("response-cache", scenario, {"model": "as --model, or the bundled"})
    rows, goals = list[Row](), list[Goal]()
    async with open_stores(options.environment) as stores:
        for name, store in stores.items():
            progress(f"lookups in {name}")
            rows += await lookups(name, store, scenario)
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


async def _over_http(target: Target, embedding: str, scenario: ResponseCacheScenario) -> list[Row]:
    """Whole answers, from the writing of the request to the last byte."""
    assert target.server is not None, "a server of our own is measured"
    client = HttpClient(target.server.url, extra_header=_SEMANTIC_HEADER)
    times: dict[str, list[float]] = {"computed": [], "exact hit": [], "semantic hit": []}
    num_same = 0
    for number in range(scenario.num_questions):
        texts = []
        for kind, asked in (
            ("computed", question(number)),
            ("exact hit", question(number)),
            ("semantic hit", reworded(number)),
        ):
            body = {
                "messages": [{"role": "user", "content": asked}],
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
    groups = semantic_pairs.odd_groups(semantic_pairs.read_groups())
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


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector]
