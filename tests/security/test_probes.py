"""What a tenant can find out by asking what another may have asked: nothing.

Answers come sooner for what is cached, so a probe would measure times. Here everything that makes
times differ is counted instead: blocks that are found again, answers that are kept, calls that
reach the engine. The engine computes nothing, but keeps books on blocks with the real cache.
"""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest
from tests.security.conftest import ADMIN, MINE, OTHER, Serve, bearer

from novacron.bench.paced_engine import PacedConfig, PacedEngine
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.identity.configured_keys import tenant_of
from novacron.gateway.response_caching import OpenedCache
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.memory_store import MemoryStore

SECRET = "the merger is announced on Friday, and nobody is to know of it " * 8
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": SECRET}], "temperature": 0}
NO_TIME = PacedConfig(prefill_s=0.0, row_s=0.0, step_s=0.0, restart_s=1.0, num_blocks=4096)

# Each asks about the same prompt, in its own words.
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**CHAT, "max_tokens": 2},
    "/v1/completions": {"prompt": SECRET, "max_tokens": 2, "temperature": 0},
    "/v1/messages": {**CHAT, "model": "fake", "max_tokens": 2},
    "/v1/responses": {"input": SECRET, "max_output_tokens": 16, "temperature": 0},
    "/api/chat": {**CHAT, "model": "fake", "stream": False, "options": {"num_predict": 2}},
}

# What a prober may add, to be taken for the other one or to reach what is shared.
TRICKS: tuple[dict[str, Any], ...] = (
    {},
    {"cache_salt": tenant_of(MINE)},
    {"cache_salt": f"{tenant_of(MINE)}\x00of mine"},
    {"cache_scope": "public"},
    {"session_id": "the session"},
    {"user": tenant_of(MINE)},
)


@pytest.fixture
def engine(tokenizer: Tokenizer) -> PacedEngine:
    return PacedEngine(NO_TIME, tokenizer)


def http(url: str, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers=bearer(key), timeout=20)


async def ask(client: httpx2.AsyncClient, path: str, **more: object) -> httpx2.Response:
    answer = await client.post(path, json={**DIALECTS[path], **more})
    assert answer.status_code == 200, answer.text
    return answer


def cached_tokens(told: Any) -> int:
    """Whatever the dialect calls it, and wherever it says so."""
    if isinstance(told, dict):
        names = ("cached_tokens", "cache_read_input_tokens")
        own = sum(told.get(name) or 0 for name in names)
        return own + sum(cached_tokens(one) for one in told.values())
    return sum(map(cached_tokens, told)) if isinstance(told, list) else 0


@pytest.mark.parametrize("path", DIALECTS)
async def test_no_block_of_a_prompt_is_found_by_another_tenant(
    serve: Serve, engine: PacedEngine, path: str
) -> None:
    async with serve(engine) as target, http(target.url, MINE) as mine:
        first = await ask(mine, path)
        assert engine.num_found_tokens == 0
        again = await ask(mine, path)
        found = engine.num_found_tokens
        assert found > 100, "whoever asked before finds it, or this test could not fail"
        for key in (OTHER, ADMIN):
            async with http(target.url, key) as other:
                probe = await ask(other, path)
                assert engine.num_found_tokens == found
                assert cached_tokens(probe.json()) == cached_tokens(first.json()) == 0
        if path != "/api/chat":  # Ollama's words have none for it
            assert cached_tokens(again.json()) > 100


async def test_no_field_of_a_body_leads_to_blocks_of_others(
    serve: Serve, engine: PacedEngine
) -> None:
    path = "/v1/chat/completions"
    async with (
        serve(engine) as target,
        http(target.url, MINE) as mine,
        http(target.url, OTHER) as other,
    ):
        for number, trick in enumerate(TRICKS):  # own probes find nothing of each other
            messages = [{"role": "user", "content": f"{number} {SECRET}"}]
            for mark in ("", "of mine"):
                sent = {"messages": messages, "session_id": "the session", "cache_salt": mark}
                await ask(mine, path, **sent)
            probe = await ask(other, path, messages=messages, **trick)
            assert engine.num_found_tokens == cached_tokens(probe.json()) == 0, trick


async def test_a_longer_guess_finds_no_more_than_a_wrong_one(
    serve: Serve, engine: PacedEngine
) -> None:
    """Letter by letter, as one guesses a secret by what of it is cached."""
    path = "/v1/completions"
    async with (
        serve(engine) as target,
        http(target.url, MINE) as mine,
        http(target.url, OTHER) as other,
    ):
        await ask(mine, path)
        for length in range(0, len(SECRET), 100):
            for number, guess in enumerate((SECRET[:length], "y" * length)):
                alone = f"{length} {number}"  # own guesses find nothing of each other
                await ask(other, path, prompt=guess + "x" * 64, cache_salt=alone)
                assert engine.num_found_tokens == 0, guess


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
async def test_no_kept_answer_is_found_by_another_tenant(
    serve: Serve, engine: PacedEngine, path: str
) -> None:
    store = MemoryStore(1 << 22, time.monotonic)
    cache = OpenedCache(answers=ResponseCache(store, 3600.0), store_name="memory")
    greedy = {"options": {"temperature": 0, "num_predict": 2}} if path == "/api/chat" else {}
    async with (
        serve(engine, cache) as target,
        http(target.url, MINE) as mine,
        http(target.url, OTHER) as other,
    ):
        first, again = [await ask(mine, path, **greedy) for _ in range(2)]
        assert first.headers["x-novacron-cache"] == "miss"
        assert again.headers["x-novacron-cache"] == "hit"
        assert engine.num_calls == 1
        probe = await ask(other, path, **greedy)
        assert probe.headers["x-novacron-cache"] == "miss"
        assert "age" not in probe.headers
        assert engine.num_calls == 2
        dropped = await other.delete("/api/v1/llm/response-cache")
        assert dropped.status_code == 200
        assert (await ask(mine, path, **greedy)).headers["x-novacron-cache"] == "hit"
