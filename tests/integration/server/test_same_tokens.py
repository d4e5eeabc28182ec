"""Greedy answers do not depend on company, chunks, the prefix cache, preemption or a new engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2
import pytest

from novacron.testing.server_process import PATIENCE_S, ServerProcess, StartServer, wait_until

PROMPTS = (
    "What is the capital of France?",
    "What is 27 plus 45?",
    "Reverse the word planet.",
    "Write a JSON record of a person named Ada who is 36.",
    "The key of the red house is 4711. " * 12 + "What is the key of the red house?",
    "The key of the red house is 4711. " * 12 + "Which house has the key 4711?",
    "Tell me about NovaCron.",
    "Hello!",
)
MAX_TOKENS = 40

Answers = list[list[str]]


@pytest.fixture(scope="module")
def alone(launch: StartServer) -> Answers:
    """The tokens that each prompt gets from a server that does nothing else, and keeps nothing."""
    with launch("--no-enable-prefix-caching") as server:
        return asyncio.run(answer_one_by_one(server.wait_ready(), PROMPTS))


@pytest.fixture(scope="module")
def narrow(launch: StartServer) -> ServerProcess:
    """A server with room for two or three of the prompts, and steps shorter than the long ones."""
    block_bytes = 2 * 6 * 256 * 4 * 16  # K and V, layers, width, float32, tokens
    return launch(
        "--kv-cache-memory", str(30 * block_bytes), "--max-model-len", "400",
        "--max-num-batched-tokens", "48", "--max-num-seqs", "8",
    ).wait_ready()  # fmt: skip


async def test_together_and_with_a_warm_cache(server: ServerProcess, alone: Answers) -> None:
    assert await answer_together(server, PROMPTS) == alone
    assert await answer_together(server, PROMPTS[::-1]) == alone[::-1]
    assert await answer_one_by_one(server, PROMPTS) == alone


async def test_in_chunks_and_put_back_for_lack_of_blocks(
    narrow: ServerProcess, alone: Answers
) -> None:
    assert await answer_together(narrow, PROMPTS) == alone
    assert narrow.metric("vllm:num_preemptions_total") > 0
    assert await answer_one_by_one(narrow, PROMPTS) == alone


async def test_after_the_engine_was_killed(narrow: ServerProcess, alone: Answers) -> None:
    narrow.engine.kill()
    await asyncio.to_thread(wait_until, lambda: not narrow.is_ready())
    await asyncio.to_thread(narrow.wait_ready)
    assert await answer_together(narrow, PROMPTS) == alone


async def answer_together(server: ServerProcess, prompts: Sequence[str]) -> Answers:
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        return await asyncio.gather(*(answer(http, prompt) for prompt in prompts))


async def answer_one_by_one(server: ServerProcess, prompts: Sequence[str]) -> Answers:
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        return [await answer(http, prompt) for prompt in prompts]


async def answer(http: httpx2.AsyncClient, prompt: str) -> list[str]:
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": True,
    }
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    positions = response.json()["choices"][0]["logprobs"]["content"]
    assert len(positions) == MAX_TOKENS
    return [position["token"] for position in positions]
