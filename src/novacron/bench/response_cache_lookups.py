"""What a lookup in the response cache takes, in each store, without HTTP or a model."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from novacron.bench.own_redis import has_redis, redis_settings
from novacron.bench.result import Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
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

_BYTES: Final = 1 << 28
_TTL_S: Final = 3600.0
_MODEL: Final = ModelIdentity("bench", "float32", "none", "", "cpu", 1 << 20, ())
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


@dataclass(frozen=True, kw_only=True)
class ResponseCacheScenario(Scenario):
    num_answers: int = option(1000, "answers and questions in the cache")
    num_hits: int = option(500, "lookups that are timed, of each kind")
    prompt_tokens: int = option(512, "length of a prompt")
    answer_tokens: int = option(128, "length of an answer")
    num_questions: int = option(60, "questions that a server is asked: anew, again, and reworded")
    threshold: float = option(0.5, "least cosine", least=-1)


@contextlib.asynccontextmanager
async def open_stores(environment: Mapping[str, str]) -> AsyncIterator[dict[str, AnswerStore]]:
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


async def lookups(name: str, store: AnswerStore, scenario: ResponseCacheScenario) -> list[Row]:
    """Of answers to the letter, and of questions in other words."""
    cache = ResponseCache(store, _TTL_S)
    index, keys = VectorIndex(), list[Key]()
    partition = ("tenant", b"")
    for number in range(scenario.num_answers):
        request = _request(number, scenario)
        key = key_of("tenant", _MODEL, [request])
        await cache.keep(key, _answer(request, scenario, cache.now_s))
        index.add(partition, hash_embedding(question(number)), question(number), key)
        keys.append(key)
    exact, semantic, found = list[float](), list[float](), 0
    for turn in range(scenario.num_hits):
        request = _request(turn % scenario.num_answers, scenario)
        started_s = time.perf_counter()
        answer = await cache.find(key_of("tenant", _MODEL, [request]))
        assert answer is not None
        next(iter(answer.replay([request])))
        exact.append(time.perf_counter() - started_s)
        asked = reworded(turn % scenario.num_answers)
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


def question(number: int) -> str:
    return f"What is the story of the {_TOPICS[number % len(_TOPICS)]} number {number}?"


def reworded(number: int) -> str:
    return f"Please tell me the story of the {_TOPICS[number % len(_TOPICS)]} number {number}."
