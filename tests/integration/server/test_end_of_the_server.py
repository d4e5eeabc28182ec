"""How a real server ends: finishing its work when asked, at once when told twice, or killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from novacron.testing.server_process import (
    PATIENCE_S,
    ServerProcess,
    StartServer,
    wait_until,
)

CHAT = "/v1/chat/completions"
LONG = 1000  # tokens: still computing when the engine is paused, however late that is


def chat(max_tokens: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


@contextlib.asynccontextmanager
async def streaming(
    http: httpx2.AsyncClient, max_tokens: int
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """A stream whose first event has arrived."""
    async with http.stream("POST", CHAT, json={**chat(max_tokens), "stream": True}) as response:
        assert response.status_code == 200
        events = read_events(response)
        await anext(events)
        yield events


async def read_events(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def client_of(server: ServerProcess) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S)


async def begin_to_end(server: ServerProcess, number: signal.Signals = signal.SIGTERM) -> None:
    """Tell it to end, and wait until it refuses work."""
    server.process.send_signal(number)
    await asyncio.to_thread(wait_until, lambda: not server.is_ready())


async def test_the_first_signal_finishes_what_runs_and_refuses_the_rest(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(TMPDIR=str(tmp_path)).wait_ready()
    engine = server.engine
    async with client_of(server) as http:
        whole = (await http.post(CHAT, json=chat(LONG))).json()["choices"][0]["message"]["content"]
        async with streaming(http, LONG) as events:
            server.pause_engine()
            await begin_to_end(server)
            refused = await http.post(CHAT, json=chat(1))
            alive = await http.get("/health")
            server.resume_engine()
            choices = [choice async for event in events for choice in event["choices"]]
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert alive.status_code == 200
    assert "".join(choice["delta"].get("content", "") for choice in choices) == whole
    assert choices[-1]["finish_reason"] == "length"
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert not is_alive(engine)
    assert os.listdir(tmp_path) == []  # sockets included
    assert server.log_records("error") == []


async def test_the_second_signal_ends_at_once(start_server: StartServer) -> None:
    server = start_server("--shutdown-timeout", "600").wait_ready()
    engine = server.engine
    async with client_of(server) as http, streaming(http, 4000) as events:
        server.pause_engine()  # it cannot finish
        await begin_to_end(server, signal.SIGINT)
        server.process.send_signal(signal.SIGINT)
        last = [event async for event in events][-1]
    assert last["error"]["code"] == "engine_dead"
    assert await asyncio.to_thread(server.wait_exit) == 128 + signal.SIGINT
    assert not is_alive(engine)
    assert server.log_records("error") == []


async def test_work_that_takes_too_long_is_cut_off_and_told(start_server: StartServer) -> None:
    server = start_server("--shutdown-timeout", "100ms").wait_ready()
    async with client_of(server) as http, streaming(http, 4000) as events:
        server.process.terminate()
        last = [event async for event in events][-1]
    assert last["error"]["code"] == "engine_dead"
    assert await asyncio.to_thread(server.wait_exit) == 1
    assert "--shutdown-timeout" in server.log()


def test_a_signal_while_the_model_loads_ends_cleanly(start_server: StartServer) -> None:
    server = start_server()
    wait_until(lambda: "loading" in server.log())
    engine = server.engine
    server.process.terminate()
    assert server.wait_exit() == 0
    assert not is_alive(engine)
    assert server.log_records("error") == []


@pytest.mark.parametrize("moment", ["loading: ", "ready: "])
def test_the_engine_does_not_outlive_a_killed_server(
    start_server: StartServer, tmp_path: Path, moment: str
) -> None:
    server = start_server(TMPDIR=str(tmp_path))
    wait_until(lambda: moment in server.log())
    engine = server.engine
    server.process.kill()
    server.wait_exit()
    wait_until(lambda: not is_alive(engine))
    if moment == "ready: ":  # until the engine is connected, its sockets need their names
        assert os.listdir(tmp_path) == []


def is_alive(process: psutil.Process) -> bool:
    """A zombie is not: whoever adopts it may be slow to collect it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
