"""Two engines beside each other, or one after another, that share prefixes over a server."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from novacron import LLM, SamplingParams
from novacron.testing.redis_server import find_server, running_redis

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
NO_OTHERS = {"kv_ram_size": 0, "kv_disk_size": 0}
PATIENCE_S = 60.0


def draw_prompt(seed: int, num_tokens: int = 300) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(10, 3000) for _ in range(num_tokens)]


def ask(llm: LLM, prompt: list[int]) -> tuple[tuple[int, ...], int]:
    [output] = llm.generate(prompt, GREEDY)
    return output.token_ids, output.num_cached_tokens


def expected_tokens(prompt: list[int]) -> tuple[int, ...]:
    llm = LLM(**NO_OTHERS)
    try:
        return ask(llm, prompt)[0]
    finally:
        llm.close()


@pytest.mark.skipif(find_server() is None, reason="there is no redis-server")
def test_an_engine_finds_what_another_has_stored_while_both_run() -> None:
    prompt = draw_prompt(1, 1600)  # much longer to compute than to fetch
    expected = expected_tokens(prompt)
    with running_redis() as server:
        settings: dict[str, Any] = {"kv_redis_url": f"unix://{server}", "kv_redis_deadline": 20.0}
        first, second = (LLM(**settings, **NO_OTHERS) for _ in range(2))
        try:
            assert ask(second, draw_prompt(2))[1] == 0, "it has looked once, in vain"
            assert ask(first, prompt) == (expected, 0)
            wait_for_keys(server, 19 + 100 + 1)  # of both prompts, and the list of names
            assert ask(second, prompt) == (expected, 1584)
        finally:
            first.close()
            second.close()


def test_a_bucket_brings_prefixes_to_another_site(tmp_path: Path) -> None:
    prompt = draw_prompt(3)
    expected = expected_tokens(prompt)
    settings: dict[str, Any] = {"kv_object_url": f"file://{tmp_path}", "kv_object_deadline": 20.0}
    first = LLM(**settings, **NO_OTHERS)
    assert ask(first, prompt) == (expected, 0)
    first.close()  # which stores what waits
    assert list(tmp_path.rglob("*")), "nothing was stored"
    second = LLM(**settings, **NO_OTHERS)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not second_knows(second):  # the listing is beside the requests
            assert time.monotonic() < deadline_s
            ask(second, draw_prompt(4)[:20])
        assert ask(second, prompt) == (expected, 288)
    finally:
        second.close()


def second_knows(llm: LLM) -> bool:
    return llm._core.stats().kv_tiers[0].num_blocks >= 18


def wait_for_keys(server: Path, count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    with redis.Redis(unix_socket_path=str(server)) as client:
        while client.dbsize() < count:
            assert time.monotonic() < deadline_s, "the blocks were not stored"
            time.sleep(0.05)
