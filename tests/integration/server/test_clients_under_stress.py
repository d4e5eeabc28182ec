"""Clients that leave, do not read, or come in crowds. Nothing accepted is lost."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from novacron.testing.server_process import (
    PATIENCE_S,
    ServerProcess,
    StartServer,
    wait_until,
)

MODEL = "novacron-demo"
CHAT = "/v1/chat/completions"
NEVER_ENDING = {  # minutes of work, if nobody stops it
    "messages": [{"role": "user", "content": "Count as far as you can."}],
    "max_tokens": 4000,
    "n": 16,
    "temperature": 0,
    "ignore_eos": True,
}


def chat(text: str, max_tokens: int, **fields: object) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


def num_generated(server: ServerProcess) -> float:
    return server.metric("vllm:generation_tokens_total")


@pytest.mark.parametrize("streams", [True, False])
async def test_a_client_that_leaves_frees_what_its_request_held(
    server: ServerProcess, streams: bool
) -> None:
    before = num_generated(server)
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        asking = asyncio.create_task(read_for_ever(http, {**NEVER_ENDING, "stream": streams}))
        await asyncio.to_thread(wait_until, lambda: num_generated(server) > before)
        asking.cancel()
        await asyncio.wait({asking})
    await asyncio.to_thread(wait_until, server.is_idle)
    assert num_generated(server) - before < 16 * 4000  # it was ended, it did not come to its end
    assert server.is_ready()


async def read_for_ever(http: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    async with http.stream("POST", CHAT, json=body) as response:
        async for _ in response.aiter_bytes():
            pass


async def test_a_reader_that_stalls_stalls_nobody_else_and_gets_all_in_the_end(
    server: ServerProcess, http: httpx2.AsyncClient
) -> None:
    """It asks for more than Linux lets the sockets between us hold, unless told to."""
    asked = chat("Tell me about the sea.", 150, n=16, logprobs=True, top_logprobs=20)
    reader, writer = await post_and_do_not_read(server, {**asked, "stream": True})
    other = chat("Tell me about the moon.", 20, stream=True)
    await asyncio.gather(*(read_for_ever(http, other) for _ in range(4)))
    await asyncio.to_thread(wait_until, server.is_idle)  # all of it is computed, none of it read
    chunks = await read_chunks(reader)
    writer.close()
    await writer.wait_closed()
    whole = (await http.post(CHAT, json=asked)).json()
    for choice in whole["choices"]:
        own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(c["delta"].get("content") or "" for c in own) == choice["message"]["content"]
        assert sum(len(c["logprobs"]["content"]) for c in own if c.get("logprobs")) == 150
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == ["length"]


async def post_and_do_not_read(
    server: ServerProcess, body: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return reader, writer


async def read_chunks(reader: asyncio.StreamReader) -> list[dict[str, Any]]:
    """The events of a response in HTTP's chunks, whose sizes stand on lines of their own."""
    async with asyncio.timeout(PATIENCE_S):
        raw = await reader.read()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text, body = text + body[: int(size, 16)], body[int(size, 16) + 2 :]
    events = text.decode().removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


async def test_a_full_queue_refuses_and_finishes_what_it_took(start_server: StartServer) -> None:
    """Some are refused at once; of the rest the engine, once it goes on, sends away as many as are
    too many."""
    server = start_server("--max-num-seqs", "2", "--max-queued-requests", "3").wait_ready()
    server.pause_engine()  # so that nothing ends before all have asked
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        asking = [
            asyncio.create_task(http.post(CHAT, json=chat(f"Count to {number}.", 10)))
            for number in range(12)
        ]
        while sum(task.done() for task in asking) < 12 - (2 + 3 + 3):
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
        server.resume_engine()
        answers = await asyncio.gather(*asking)
        again = await http.post(CHAT, json=chat("Count again.", 10))
    accepted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    for answer in refused:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "overloaded"
    assert len(accepted) == 5
    assert [answer.json()["usage"]["completion_tokens"] for answer in accepted] == [10] * 5
    assert again.status_code == 200


async def test_a_crowd_gets_exactly_one_result_each(server: ServerProcess) -> None:
    """Every kind of request in any order, 16 at a time; some leave before they have their answer.

    The kinds of request below tell how many results they got.
    """
    draw = random.Random(0)
    kinds = (whole, stream, stream_and_leave, tool_call, json_object, embedding, completion)
    work = [(draw.choice(kinds), random.Random(number)) for number in range(200)]
    ended_before = server.metric("vllm:request_success_total")
    num_results = 0
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    ) as api:
        queue = iter(work)

        async def client() -> None:
            nonlocal num_results
            for kind, own_draw in queue:  # shared: each takes the next one
                num_got = await kind(api, own_draw)
                num_results += num_got

        async with asyncio.TaskGroup() as clients:
            for _ in range(16):
                clients.create_task(client())
    await asyncio.to_thread(wait_until, server.is_idle)
    ended = server.metric("vllm:request_success_total") - ended_before
    num_left = sum(kind is stream_and_leave for kind, _ in work)
    assert num_results <= ended <= num_results + num_left
    assert server.log_records("error") == []
    assert server.metric("novacron_engine_restarts_total") == 0


WORDS = "what is the capital of river seven plus blue tell me".split()


def words(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 60)))


async def whole(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    wanted = draw.randint(1, 30)
    answer = await api.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": words(draw)}],
        max_tokens=wanted,
        temperature=draw.choice([0, 1]),
        extra_body={"ignore_eos": True},
    )
    assert [choice.finish_reason for choice in answer.choices] == ["length"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == wanted
    return 1


async def stream(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    n = draw.randint(1, 3)
    chunks = [
        chunk
        async for chunk in await api.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": words(draw)}],
            max_tokens=draw.randint(1, 30),
            n=n,
            stream=True,
        )
    ]
    ended = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert sorted(ended) == list(range(n))
    return n


async def stream_and_leave(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    chunks = await api.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": words(draw)}],
        max_tokens=3000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    num_read = draw.randint(1, 10)
    async for _ in chunks:
        num_read -= 1
        if not num_read:
            break
    await chunks.close()
    return 0


async def tool_call(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    answer = await api.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": words(draw)}],
        tools=[{"type": "function", "function": {"name": "switch", "parameters": SWITCH}}],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments)["on"] in (True, False)
    return 1


SWITCH = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


async def json_object(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    answer = await api.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": words(draw)}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "switch", "schema": SWITCH, "strict": True},
        },
        max_tokens=200,
    )
    assert json.loads(answer.choices[0].message.content or "")["on"] in (True, False)
    return 1


async def embedding(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    texts = [words(draw) for _ in range(draw.randint(1, 3))]
    answer = await api.embeddings.create(model=MODEL, input=texts)
    assert [one.index for one in answer.data] == list(range(len(texts)))
    return len(texts)


async def completion(api: openai.AsyncOpenAI, draw: random.Random) -> int:
    answer = await api.completions.create(
        model=MODEL, prompt=[words(draw), words(draw)], max_tokens=10, stop=["the"]
    )
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    assert [choice.index for choice in answer.choices] == [0, 1]
    return 2
