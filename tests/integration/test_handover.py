"""Streams that outlive their coordinator: several gateways on one database, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from novacron.accounts.accounts import Accounts
from novacron.accounts.book import BookInThread
from novacron.accounts.data_policy import StoredPolicies
from novacron.accounts.database.audit import differences, entries
from novacron.accounts.database.shared_state import DatabaseState
from novacron.accounts.database.store import Store
from novacron.accounts.key_directory import AccountKeys
from novacron.accounts.ledger import Ledger
from novacron.config.server import ServerConfig
from novacron.coordination.member import Member
from novacron.coordination.seat import Duty, Seat
from novacron.coordination.stream_journal import StreamJournal
from novacron.coordination.streams import Chunk, StreamEnd
from novacron.engine.tokenization import Tokenizer
from novacron.errors import DatabaseUnavailable
from novacron.gateway.app import build_app
from novacron.gateway.calls import CallOrigin
from novacron.gateway.handover import request as requests
from novacron.gateway.handover.handover import OpenedHandover
from novacron.gateway.handover.peers import Peers
from novacron.gateway.handover.together import Coordination
from novacron.gateway.identity.configured_keys import ConfiguredKeys
from novacron.gateway.identity.key_hash import hash_key
from novacron.gateway.native.schema import NativeChatBody
from novacron.gateway.native.streams import Asked, Form
from novacron.gateway.openai.chat import parse_chat
from novacron.gateway.openai.schema import ChatBody
from novacron.gateway.recording import UNRECORDED
from novacron.gateway.tool_calls import call_ids
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.serving import serving
from novacron.testing.waiting import until

BASE = "/api/v1/llm"
REPLY = "".join(f"{number}, " for number in range(60))
CHAT = {"messages": [{"role": "user", "content": "count"}], "stream": True, "temperature": 0}
NOWHERE = "http://127.0.0.1:1"
TIMEOUT_S = 3600.0  # nobody is late by mistake
KEYS = ("first", "second")


class Rows(DatabaseState):
    """The shared database as one coordinator sees it, until it is cut off."""

    is_cut_off = False

    def append(self, owner: str, chunks: Sequence[Chunk], ends: Sequence[StreamEnd]) -> set[str]:
        if self.is_cut_off:
            raise DatabaseUnavailable("cut off")
        return super().append(owner, chunks, ends)

    def leave(self, member_id: str) -> None:
        if self.is_cut_off:
            raise DatabaseUnavailable("cut off")
        super().leave(member_id)


class Node:
    """One coordinator with its engine."""

    def __init__(self, name: str, store: Store, tokenizer: Tokenizer) -> None:
        self.engine = FakeEngineClient(tokenizer, reply=lambda request: REPLY, step_s=0.002)
        self.rows = Rows(store.database)
        self.seat = Seat(self.rows, Member(id=name), TIMEOUT_S)
        self.book = store.book(name)
        self.seat.add(Duty(name="ledger", every_s=3600, run=self.book.sweep))
        self.ledger = Ledger(BookInThread(self.book))
        self.journal = StreamJournal(self.rows, name, flush_every_s=0.02)
        self.store = store
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        accounts = Accounts(
            ledger=self.ledger,
            administration=self.store,
            directory=AccountKeys(self.store),
            policies=StoredPolicies(self.store.policies),
            hash_key=hash_key,
        )
        handover = OpenedHandover(
            rows=self.rows,
            journal=self.journal,
            peers=Peers(lambda member_id: self.seat.picture.is_alive(member_id)),
        )
        app = build_app(
            self.engine,
            ServerConfig(keep_alive_interval=0.5),
            model_names=("fake",),
            authenticator=ConfiguredKeys(KEYS, ()),
            accounts=accounts,
            coordination=Coordination(seat=self.seat, handover=handover),
        )
        async with serving(app) as self.url:
            await self.say_where(self.url)
            yield

    async def say_where(self, url: str) -> None:
        self.seat.member = msgspec.structs.replace(self.seat.member, address=url)
        await asyncio.to_thread(self.seat.beat)

    async def die(self) -> None:
        """As far as others can see."""
        await self.say_where(NOWHERE)
        self.rows.is_cut_off = True


class Cluster:
    def __init__(self, a: Node, b: Node, store: Store) -> None:
        self.a, self.b, self.store = a, b, store

    async def look(self) -> None:
        """Everybody knows where the others are."""
        for node in (self.a, self.b):
            if not node.rows.is_cut_off:
                await asyncio.to_thread(node.seat.beat)


@pytest.fixture
async def cluster(tmp_path: Path, tokenizer: Tokenizer) -> AsyncIterator[Cluster]:
    store = Store(f"sqlite:///{tmp_path}/accounts.db")
    async with AsyncExitStack() as stack:
        nodes = [Node(name, store, tokenizer) for name in "ab"]
        for node in nodes:
            await stack.enter_async_context(node.running())
        cluster = Cluster(*nodes, store)
        await cluster.look()
        yield cluster
    store.close()


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {KEYS[0]}"}
    async with httpx2.AsyncClient(timeout=20.0, headers=headers) as client:
        yield client


async def events_of(
    response: httpx2.Response, enough: Callable[[list[Any]], bool] = lambda events: False
) -> list[Any]:
    events: list[Any] = []
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if event["type"] != "health":
                events.append(event)
            if enough(events):
                break
    return events


def has(number: int) -> Callable[[list[Any]], bool]:
    return lambda events: len(events) >= number


def told(events: Sequence[Any]) -> list[Any]:
    """All but times."""
    kept = []
    for event in events:
        data = {k: v for k, v in event["data"].items() if k not in ("performance", "created")}
        kept.append((event["type"], event["sequence_number"], data))
    return kept


async def begin(
    http: httpx2.AsyncClient, node: Node, request_id: str, num_events: int, **more: object
) -> list[Any]:
    """The first events of a stream that its client leaves with its coordinator."""
    body = {**CHAT, "background": True, "request_id": request_id, **more}
    url = f"{node.url}{BASE}/chat/completions"
    async with http.stream("POST", url, json=body) as response:
        assert response.status_code == 200, await response.aread()
        return await events_of(response, has(num_events))


async def attach(
    http: httpx2.AsyncClient, node: Node, request_id: str, after: int | None = None
) -> list[Any]:
    headers = {} if after is None else {"last-event-id": str(after)}
    url = f"{node.url}{BASE}/stream/{request_id}"
    async with http.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await events_of(response)


async def whole(http: httpx2.AsyncClient, node: Node, **more: object) -> list[Any]:
    """The same stream, undisturbed."""
    return await begin(http, node, "undisturbed", 10**6, **more)


def texts(events: Sequence[Any]) -> list[str]:
    by_choice: dict[int, str] = {}
    for event in events:
        if event["type"] == "token":
            index = event["data"]["index"]
            by_choice[index] = by_choice.get(index, "") + event["data"]["text"]
    return [text for _, text in sorted(by_choice.items())]


async def test_a_stream_is_read_through_another_coordinator(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    seen = await begin(http, cluster.a, "s", 5)
    rest = await attach(http, cluster.b, "s", after=4)
    assert told(rest) == told(await attach(http, cluster.a, "s"))[5:]
    assert texts([*seen, *rest]) == [REPLY]
    assert cluster.b.engine.submitted == []
    url = f"{cluster.b.url}{BASE}/stream/s?from=100000"
    assert (await http.get(url)).status_code == 204


@pytest.mark.parametrize("num_seen", [1, 20])
async def test_a_stream_whose_coordinator_dies_goes_on_at_another(
    cluster: Cluster, http: httpx2.AsyncClient, num_seen: int
) -> None:
    reference = await whole(http, cluster.a)
    seen = await begin(http, cluster.a, "s", num_seen)
    await cluster.a.die()
    await cluster.look()
    rest = await attach(http, cluster.b, "s", after=seen[-1]["sequence_number"])
    assert texts([*seen, *rest]) == texts(reference) == [REPLY]
    assert [e["sequence_number"] for e in [*seen, *rest]] == list(range(len(seen) + len(rest)))
    assert rest[-1]["type"] == "complete"
    assert rest[-1]["data"]["usage"] == reference[-1]["data"]["usage"]
    again = await attach(http, cluster.b, "s")
    assert told(again[: len(seen)]) == told(seen)
    assert told(again[len(seen) :]) == told(rest)


async def test_several_answers_sampled_go_on_in_the_pieces_that_were_told(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    more = {"n": 3, "temperature": 1.0, "logprobs": True}
    seen = await begin(http, cluster.a, "s", 20, **more)
    await cluster.a.die()
    await cluster.look()
    again = await attach(http, cluster.b, "s")
    assert told(again[: len(seen)]) == told(seen)
    assert texts(again) == [REPLY] * 3
    seeds = [{r.sampling.seed for r in node.engine.submitted} for node in (cluster.a, cluster.b)]
    assert seeds[0] == seeds[1]
    assert None not in seeds[0]


async def test_what_ended_before_its_coordinator_can_still_be_read(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    reference = await begin(http, cluster.a, "s", 10**6)
    await until(lambda: not cluster.a.journal._changed)
    await cluster.a.die()
    await cluster.look()
    assert told(await attach(http, cluster.b, "s")) == told(reference)


async def test_a_reader_passed_on_does_not_notice_the_death(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    cluster.a.engine.step_s = 0.01
    await begin(http, cluster.a, "s", 2)
    reading = asyncio.create_task(attach(http, cluster.b, "s"))
    await until(lambda: cluster.a.engine.stats.generation_tokens > 30)
    a = cluster.a
    await a.die()
    cluster.b.seat.picture = msgspec.structs.replace(cluster.b.seat.picture, members={})
    events = await reading
    assert texts(events) == [REPLY]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert cluster.b.engine.submitted != []


async def test_a_coordinator_that_comes_back_is_fenced_and_its_readers_are_passed_on(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    """It was not dead: only the others could not reach it."""
    cluster.a.engine.step_s = 0.01
    reading = asyncio.create_task(begin(http, cluster.a, "s", 10**6))
    await until(lambda: cluster.a.engine.stats.generation_tokens > 5)
    await cluster.a.say_where(NOWHERE)
    await cluster.look()
    from_b = await attach(http, cluster.b, "s")
    events = await reading
    assert told(events) == told(from_b)
    assert texts(events) == [REPLY]
    assert cluster.a.engine.aborted != []


async def test_a_background_call_goes_on_without_a_reader(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    cluster.a.engine.step_s = 3600
    body = {**CHAT, "stream": False, "background": True, "request_id": "s"}
    response = await http.post(f"{cluster.a.url}{BASE}/chat/completions", json=body)
    assert response.status_code == 202
    await cluster.a.die()
    await asyncio.to_thread(cluster.a.seat._registry.beat, Member(id="a"), (), -1)
    with cluster.store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE leases SET expires_ms = 1")
    await cluster.look()
    await until(lambda: cluster.b.engine.submitted)
    assert texts(await attach(http, cluster.b, "s")) == [REPLY]


async def test_streams_of_others_are_as_unknown_as_those_that_never_were(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    await begin(http, cluster.a, "s", 2)
    other = {"authorization": f"Bearer {KEYS[1]}"}
    answers = [
        await http.get(f"{cluster.b.url}{BASE}/stream/{name}", headers=other)
        for name in ("s", "never")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    bodies = [answer.json()["error"] for answer in answers]
    assert bodies[0]["message"].replace("'s'", "'never'") == bodies[1]["message"]
    again = await http.delete(f"{cluster.b.url}{BASE}/requests/s", headers=other)
    assert again.status_code == 404
    mine = await http.post(
        f"{cluster.b.url}{BASE}/chat/completions", json={**CHAT, "request_id": "s"}, headers=other
    )
    assert mine.status_code == 200


async def test_an_id_in_use_is_in_use_everywhere(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    await begin(http, cluster.a, "s", 2)
    body = {**CHAT, "request_id": "s"}
    answer = await http.post(f"{cluster.b.url}{BASE}/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "request_id"


async def test_a_stream_is_cancelled_through_another_coordinator(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    cluster.a.engine.step_s = 0.01
    await begin(http, cluster.a, "s", 2)
    assert (await http.delete(f"{cluster.b.url}{BASE}/requests/s")).status_code == 200
    events = await attach(http, cluster.b, "s")
    assert events[-1]["data"]["choices"][0]["finish_reason"] == "abort"


async def test_a_stream_that_its_client_leaves_leaves_no_record(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    cluster.a.engine.step_s = 0.01
    await begin(http, cluster.a, "s", 2, background=False)
    await until(lambda: cluster.a.engine.aborted)
    await until(lambda: cluster.a.rows.find("s/" + tenant_of(cluster)) is None)


async def test_every_call_is_charged_once(cluster: Cluster, http: httpx2.AsyncClient) -> None:
    reference = await whole(http, cluster.a)
    await begin(http, cluster.a, "s", 20)
    await cluster.a.die()
    await cluster.look()
    await attach(http, cluster.b, "s")

    def settled() -> list[Any]:
        return [one for one in entries(cluster.store.database) if one.state == "settled"]

    await until(lambda: len(settled()) == 2)
    tokens = reference[-1]["data"]["usage"]["total_tokens"]
    assert [one.counted_tokens for one in settled()] == [tokens, tokens]
    assert differences(cluster.store.database) == []


async def test_a_websocket_attaches_through_another_coordinator(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    seen = await begin(http, cluster.a, "s", 5)
    await cluster.a.die()
    await cluster.look()
    url = f"ws{cluster.b.url.removeprefix('http')}/ws/llm/stream/s?from=5"
    rest = []
    headers = {"authorization": f"Bearer {KEYS[0]}"}
    async with connect(url, additional_headers=headers) as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                rest.append(json.loads(await socket.recv()))
    assert texts([*seen, *rest]) == [REPLY]
    assert rest[0]["sequence_number"] == 5


async def test_a_server_with_another_model_does_not_go_on_with_it(
    cluster: Cluster, http: httpx2.AsyncClient, tokenizer: Tokenizer
) -> None:
    await begin(http, cluster.a, "s", 5)
    spec = msgspec.structs.replace(cluster.b.engine._spec, model_version="1" * 32)
    cluster.b.engine._spec = spec
    await cluster.a.die()
    await cluster.look()
    answer = await http.get(f"{cluster.b.url}{BASE}/stream/s")
    assert answer.status_code == 503
    assert "another model" in answer.json()["error"]["message"]


async def test_the_status_names_coordinators_and_duties(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    status = (await http.get(f"{cluster.b.url}{BASE}/cluster/status")).json()
    found = [(c["coordinator_id"], c["is_alive"], c["is_this"]) for c in status["coordinators"]]
    assert sorted(found) == [("a", True, False), ("b", True, True)]
    assert {d["duty"]: d["holder"] for d in status["duties"]} == dict.fromkeys(
        ("ledger", "orphans", "streams"), "a"
    )


def tenant_of(cluster: Cluster) -> str:
    return cluster.a.engine.submitted[-1].tenant


CHAT_BODY = {"messages": [{"role": "user", "content": "count"}], "stream": True, "temperature": 0}
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT_BODY),
    "completions": ("/v1/completions", {"prompt": "count", "stream": True, "max_tokens": 1000}),
    "responses": ("/v1/responses", {"input": "count", "stream": True, "temperature": 0}),
    "anthropic": ("/v1/messages", {**CHAT_BODY, "model": "fake", "max_tokens": 100_000}),
    "ollama-chat": ("/api/chat", {**CHAT_BODY, "model": "fake"}),
    "ollama-raw": ("/api/generate", {"prompt": "count", "raw": True, "model": "fake"}),
}


class DialectReader:
    """Reads lines of a stream, as its own client would, and notes the number it was told last."""

    def __init__(self, dialect: str) -> None:
        self.text = ""
        self.last_id: int | None = None
        self.num_pieces = 0
        self._lines: list[str] = []
        self._path, self._body = DIALECTS[dialect]

    async def read(
        self,
        http: httpx2.AsyncClient,
        url: str,
        enough: Callable[[], bool] = lambda: False,
        headers: dict[str, str] | None = None,
    ) -> str:
        """The request's id, once the stream has ended or is enough."""
        async with http.stream(
            "POST", url + self._path, json=self._body, headers=headers
        ) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                self._take(line)
                if enough():
                    break
            return str(response.headers["x-request-id"])

    def _take(self, line: str) -> None:
        """A server-sent event counts once its empty line is there."""
        self._lines.append(line)
        if line and self._lines[0].startswith(("id:", "data:", "event:", ":")):
            return
        for told in self._lines:
            if told.startswith("id: "):
                self.last_id = int(told.removeprefix("id: "))
            data = told.removeprefix("data: ")
            if data.startswith("{"):
                piece = _piece_of(json.loads(data))
                self.text += piece
                self.num_pieces += bool(piece)
        self._lines.clear()


def _piece_of(told: dict[str, Any]) -> str:
    """The text in an event of any dialect."""
    match told:
        case {"choices": [{"delta": {"content": str(text)}}]}:
            return text
        case {"choices": [{"text": str(text)}]} | {"response": str(text)}:
            return text
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return text
        case {"delta": {"text": str(text)}} | {"message": {"content": str(text)}}:
            return text
    return ""


async def test_streams_of_other_apis_go_on_as_native_events(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    """A client has the id in the header; where there are numbers, that of its last event."""
    cluster.a.engine.step_s = 0.01
    readers = {dialect: DialectReader(dialect) for dialect in DIALECTS}

    async def die_amid() -> None:
        await until(lambda: all(reader.num_pieces >= 5 for reader in readers.values()))
        await cluster.a.die()

    dying = asyncio.create_task(die_amid())
    reading = (one.read(http, cluster.a.url, dying.done) for one in readers.values())
    request_ids = await asyncio.gather(*reading)
    await dying
    await cluster.look()
    for (dialect, reader), request_id in zip(readers.items(), request_ids, strict=True):
        seen = reader.text
        assert 0 < len(seen) < len(REPLY)
        assert (reader.last_id is None) == dialect.startswith("ollama")
        if reader.last_id is not None:
            rest = await attach(http, cluster.b, request_id, after=reader.last_id)
            assert seen + texts(rest)[0] == REPLY
        events = await attach(http, cluster.b, request_id)
        assert texts(events) == [REPLY]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "complete"
    assert len(cluster.b.engine.submitted) == len(DIALECTS)


async def test_a_stream_of_another_api_is_read_beside_its_client(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    reader = DialectReader("chat")
    request_id = await reader.read(http, cluster.a.url)
    events = await attach(http, cluster.b, request_id)
    assert (texts(events), reader.text) == ([REPLY], REPLY)
    assert events[-1]["sequence_number"] == reader.last_id
    assert cluster.b.engine.submitted == []


async def test_an_id_that_proxies_repeat_keeps_no_client_out(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    """It is the first stream that can be read under it."""
    told = [DialectReader("chat") for _ in range(3)]
    repeated = {"x-request-id": "again"}
    for reader, node in zip(told, (cluster.a, cluster.a, cluster.b), strict=True):
        assert await reader.read(http, node.url, headers=repeated) == "again"
    assert [reader.text for reader in told] == [REPLY] * 3
    assert texts(await attach(http, cluster.b, "again")) == [REPLY]


async def test_a_stream_of_another_api_that_its_client_leaves_leaves_no_record(
    cluster: Cluster, http: httpx2.AsyncClient
) -> None:
    cluster.a.engine.step_s = 0.01
    reader = DialectReader("chat")
    request_id = await reader.read(http, cluster.a.url, lambda: reader.num_pieces > 1)
    await until(lambda: cluster.a.engine.aborted)
    await until(lambda: cluster.a.rows.find(f"{request_id}/{tenant_of(cluster)}") is None)


async def test_a_schema_goes_on_record_and_tool_calls_keep_their_ids(
    tokenizer: Tokenizer,
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for body in (
        NativeChatBody.model_validate(
            {
                **CHAT_BODY,
                "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
            }
        ),
        ChatBody.model_validate({**CHAT_BODY, "structured_outputs": {"json": schema}}),
    ):
        form: Form = "native" if isinstance(body, NativeChatBody) else "openai"
        origin = CallOrigin(call_id="c", request_id="r", model="m", created=1, arrival_time_s=0.0)
        before = parse_chat(body, origin, tokenizer)
        data = requests.record(origin, Asked(body, form), 7, 0.0)
        again = requests.call_of(requests.read(data), tokenizer, 4096, 0.0, UNRECORDED)
        first, second = before.call.requests[0], again.call.requests[0]
        assert first.sampling.structured_output is not None
        assert first.sampling == second.sampling
        assert again.call.origin.nonce == origin.nonce
    ids = [call_ids(origin.nonce, 0) for _ in range(2)]
    assert ids[0]() == ids[1]() != ids[0]()
