"""What one tenant can find out of another: nothing, by guessing ids, by caches, or by errors."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from tests.security.conftest import MINE, OTHER, Serve, Target, bearer
from websockets.asyncio.client import connect

STREAM = "/api/v1/llm/stream"
CHAT = {"messages": [{"role": "user", "content": "mine alone"}], "max_tokens": 4}


def http(target: Target, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=target.url, headers=bearer(key), timeout=20)


def unsaid(text: str, some_id: str) -> str:
    return text.replace(some_id, "ID")


async def test_ids_of_others_answer_as_ids_that_never_were(serve: Serve) -> None:
    """Streams, cancelling, stored responses: byte for byte, but for the id that was asked for."""
    async with serve() as target, http(target, MINE) as mine, http(target, OTHER) as other:
        sent = {**CHAT, "request_id": "zq-there", "stream": False}
        assert (await mine.post("/api/v1/llm/chat/completions", json=sent)).status_code == 200
        stored = await mine.post("/v1/responses", json={"input": "mine", "model": "fake"})
        response_id = stored.json()["id"]
        never = response_id[:-4] + "0000"
        assert (await mine.get(f"/v1/responses/{response_id}")).status_code == 200
        for method, path, there, not_there in (
            ("GET", STREAM + "/{}", "zq-there", "zq-never"),
            ("DELETE", "/api/v1/llm/requests/{}", "zq-there", "zq-never"),
            ("GET", "/v1/responses/{}", response_id, never),
            ("GET", "/v1/responses/{}/input_items", response_id, never),
            ("POST", "/v1/responses/{}/cancel", response_id, never),
            ("DELETE", "/v1/responses/{}", response_id, never),
        ):
            one = await other.request(method, path.format(there))
            two = await other.request(method, path.format(not_there))
            assert one.status_code == two.status_code, path
            assert unsaid(one.text, there) == unsaid(two.text, not_there), path
            assert "mine" not in one.text
        assert (await mine.get(f"/v1/responses/{response_id}")).status_code == 200


async def test_a_running_call_is_neither_joined_nor_ended_by_others(serve: Serve) -> None:
    async with serve() as target, http(target, OTHER) as other:
        target.engine.step_s = 0.02
        url = target.url.replace("http", "ws") + "/ws/llm/stream/running"
        async with connect(url, additional_headers=bearer(MINE)) as socket:
            await socket.send(json.dumps({**CHAT, "max_tokens": 40, "ignore_eos": True}))
            first = json.loads(await socket.recv())
            await other.delete("/api/v1/llm/requests/running")
            async with connect(url, additional_headers=bearer(OTHER)) as stranger:
                await stranger.send(json.dumps({"type": "cancel"}))
                answer = json.loads(await stranger.recv())
            assert answer["type"] == "error"
            rest = [json.loads(event) async for event in socket]
        assert first["sequence_number"] == 0
        assert target.engine.aborted == []
        assert rest[-1]["type"] != "error"


async def test_equal_prompts_of_two_tenants_share_no_block(serve: Serve) -> None:
    """The time that reuse saves would tell what others have asked: so nothing is reused."""
    long = {**CHAT, "messages": [{"role": "user", "content": "a long question " * 30}]}
    async with serve() as target, http(target, MINE) as mine, http(target, OTHER) as other:
        for client in (mine, mine, other):
            assert (await client.post("/v1/chat/completions", json=long)).status_code == 200
        first, again, stranger = target.engine.submitted
        assert first.prompt_token_ids == stranger.prompt_token_ids
        assert first.cache_salt == again.cache_salt != stranger.cache_salt
        assert first.cache_scope != stranger.cache_scope


@pytest.mark.parametrize("name", ["x-tenant-id", "x-forwarded-user", "x-tenant"])
async def test_no_header_makes_somebody_else_of_a_caller(serve: Serve, name: str) -> None:
    async with serve() as target, http(target, MINE) as mine:
        for headers in ({}, {name: "tenant:other"}):
            await mine.post("/v1/chat/completions", json=CHAT, headers=headers)
        plain, forged = target.engine.submitted
        assert (plain.tenant, plain.cache_salt) == (forged.tenant, forged.cache_salt)


async def test_many_at_once_each_get_their_own(serve: Serve) -> None:
    async with serve() as target, http(target, MINE) as mine, http(target, OTHER) as other:
        target.engine.reply = lambda request: f"for {request.cache_salt[:20]}"
        answers = await asyncio.gather(
            *(
                client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 50})
                for _ in range(20)
                for client in (mine, other)
            )
        )
        texts = [one.json()["choices"][0]["message"]["content"] for one in answers]
        assert len(set(texts[::2])) == len(set(texts[1::2])) == 1
        assert set(texts[::2]) != set(texts[1::2])
