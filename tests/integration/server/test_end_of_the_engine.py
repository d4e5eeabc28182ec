"""Engine processes end under their work: clients see a pause, and get what they would have got."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from novacron.bench.chaos_calls import KINDS, with_tools
from novacron.bench.chaos_findings import total
from novacron.bench.chaos_rounds import Chaos
from novacron.bench.faults import Site, Victims
from novacron.bench.http_client import HttpClient
from novacron.bench.scenario import ChaosScenario
from novacron.testing.server_process import (
    PATIENCE_S,
    ServerProcess,
    StartServer,
    wait_until,
)

CHAT = "/v1/chat/completions"
NATIVE_CHAT = "/api/v1/llm/chat/completions"
LONG = 500


@pytest.fixture(scope="module")
def own_server(launch: StartServer, tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    template = with_tools(tmp_path_factory.mktemp("template"))
    return launch(
        "--chat-template", str(template), "--heartbeat-timeout", "1", "--shutdown-timeout", "600"
    ).wait_ready()


def chat(max_tokens: int, **fields: object) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": "Tell me about mountains."}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


async def test_calls_of_all_kinds_go_on_exactly_when_engines_are_killed_and_stopped(
    own_server: ServerProcess,
) -> None:
    """The short form of `make chaos`."""
    server = own_server
    scenario = ChaosScenario(
        num_faults=2, num_streams=len(KINDS), max_tokens=160, faults=("kill", "stop"),
        faults_per_round=2, longest_delay=0.1,
    )  # fmt: skip
    client = HttpClient(server.url)
    try:
        chaos = Chaos(client, "novacron-demo", Site(Victims(server.process.pid)), scenario)
        found = await chaos.run()
    finally:
        client.close()
    assert chaos.kinds == KINDS
    assert found.unexpected == []
    assert [fault.kind for fault in found.faults] == ["kill", "stop"]
    outcomes = total(found.rounds, "outcomes")
    assert outcomes["same"] == sum(outcomes.values()) >= len(KINDS)
    await asyncio.to_thread(server.wait_ready)
    assert server.metric("novacron_engine_restarts_total") == 2
    assert server.metric("novacron_recovery_pause_seconds_count") > 0
    assert server.metric("novacron_request_errors_total") == 0
    await asyncio.to_thread(wait_until, server.is_idle)


async def test_a_server_that_is_told_to_end_finishes_its_work_though_its_engine_dies(
    own_server: ServerProcess,
) -> None:
    server = own_server
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:

        async def ask_everywhere(name: str) -> list[str]:
            return await asyncio.gather(
                text_of_chat(http), text_of_native(http), text_over_socket(server, name)
            )

        expected = await ask_everywhere("undisturbed")
        asking = asyncio.create_task(ask_everywhere("disturbed"))
        await asyncio.to_thread(wait_until, lambda: server.metric("vllm:num_requests_running") == 3)
        server.process.terminate()
        await asyncio.to_thread(wait_until, lambda: not server.is_ready())
        server.engine.kill()
        await asyncio.to_thread(
            wait_until, lambda: server.metric("novacron_engine_restarts_total") == 3
        )
        not_ready = await http.get("/ready")
        assert (not_ready.status_code, not_ready.json()["state"]) == (503, "draining")
        assert (await http.get("/health")).status_code == 200
        refused = await http.post(CHAT, json=chat(4))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert await asking == expected
    assert await asyncio.to_thread(server.wait_exit) == 0


async def text_of_chat(http: httpx2.AsyncClient) -> str:
    events = await events_of(http, CHAT)
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


async def text_of_native(http: httpx2.AsyncClient) -> str:
    return text_of_events(await events_of(http, NATIVE_CHAT))


def text_of_events(events: list[dict[str, Any]]) -> str:
    """The numbers of native events have no gap, and no event comes twice."""
    events = [event for event in events if event["type"] != "health"]
    first = events[0]["sequence_number"]
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(first, first + len(events)))
    return "".join(event["data"].get("text", "") for event in events)


async def events_of(http: httpx2.AsyncClient, path: str) -> list[dict[str, Any]]:
    async with http.stream("POST", path, json=chat(LONG, stream=True)) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines()]
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


async def text_over_socket(server: ServerProcess, request_id: str) -> str:
    address = server.url.replace("http://", "ws://")
    async with connect(f"{address}/ws/llm/stream/{request_id}") as connection:
        await connection.send(json.dumps(chat(LONG)))
        return text_of_events([json.loads(message) async for message in connection])
