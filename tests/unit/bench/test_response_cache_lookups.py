from __future__ import annotations

import time

from novacron.bench.response_cache_lookups import ResponseCacheScenario, lookups
from novacron.response_cache.memory_store import MemoryStore


async def test_lookups_are_timed_and_find_what_they_look_for() -> None:
    scenario = ResponseCacheScenario(
        num_answers=20, num_hits=30, prompt_tokens=16, answer_tokens=12
    )
    store = MemoryStore(1 << 20, time.monotonic)
    exact, semantic = await lookups("memory", store, scenario)
    assert exact.labels == {"what": "exact lookup, memory"}
    assert exact.metrics["time"].summary.count == 30
    assert semantic.metrics["found"].summary.mean == 1.0
