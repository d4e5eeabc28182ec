"""ReplicasClient over engines that recite: who gets what, and what the loss of one changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.cluster.replica_count import names_to_come, names_to_go
from novacron.cluster.replicas_client import ReplicasClient
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.client import DrainOptions, EngineState
from novacron.engine.tokenization import Tokenizer
from novacron.errors import (
    EngineDead,
    Forbidden,
    InvalidRequest,
    LastReplica,
    NotReady,
    Overloaded,
    ReplicaNotFound,
    Unsupported,
)
from novacron.records.cache_orders import ClearCache, ListPins, Pin, PinList
from novacron.records.request import Request, SamplingParams
from novacron.records.routing import RoutingDecision
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.waiting import until

CONFIG = EngineConfig(
    model=ModelConfig(data_parallel_size=3, seed=1),
    scheduler=SchedulerConfig(max_num_seqs=8),
)
DRAIN = DrainOptions()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class Engines:
    """The fakes in the order in which they were made, and what they were told."""

    def __init__(self, tokenizer: Tokenizer, state: EngineState = EngineState.READY) -> None:
        self.tokenizer = tokenizer
        self.state = state
        self.made: list[FakeEngineClient] = []
        self.configs: list[EngineConfig] = []
        self.decisions: list[RoutingDecision] = []

    def make(self, replica_id: str, config: EngineConfig) -> FakeEngineClient:
        name = f"replica {len(self.made)}"
        self.configs.append(config)
        self.made.append(
            FakeEngineClient(
                self.tokenizer, reply=lambda request: f"by {name}", step_s=0.001, state=self.state
            )
        )
        return self.made[-1]

    @property
    def num_submitted(self) -> list[int]:
        return [len(one.submitted) for one in self.made]


@pytest.fixture
def engines(tokenizer: Tokenizer) -> Engines:
    return Engines(tokenizer)


@pytest.fixture
async def client(engines: Engines) -> AsyncIterator[ReplicasClient]:
    client = ReplicasClient(CONFIG, engines.make, on_decision=engines.decisions.append)
    client.spawn()
    await client.start()
    await client.wait_ready()
    await until(lambda: len(engines.made) == 3)
    yield client
    await client.close()


def request(request_id: str, tokens: tuple[int, ...] = (1, 2, 3), session: bytes = b"") -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=tokens,
        sampling=SamplingParams(max_tokens=40),
        arrival_time_s=0.0,
        session=session,
    )


async def answers(client: ReplicasClient, *requests: Request) -> list[str]:
    """The text of each request, in the order in which they were given."""
    texts = [""] * len(requests)
    async for output in client.generate(requests):
        assert output.request_id == requests[output.index].request_id
        texts[output.index] += output.text
    return texts


def prompt(*blocks: int) -> tuple[int, ...]:
    """So many tokens of 16 for each number, and one more."""
    return (*(number % 200 for number in blocks for _ in range(16)), 1)


async def test_the_first_is_loaded_before_the_others_and_all_know_their_number(
    tokenizer: Tokenizer,
) -> None:
    engines = Engines(tokenizer, EngineState.LOADING)
    client = ReplicasClient(CONFIG, engines.make)
    client.spawn()
    await client.start()
    waiting = asyncio.create_task(client.wait_ready())
    await asyncio.sleep(0)
    assert len(engines.made) == 1
    assert [one.state for one in client.replicas] == [EngineState.LOADING] * 3
    engines.made[0].enter(EngineState.READY)
    await waiting
    await until(lambda: len(engines.made) == 3)
    assert (client.state, [one.state.value for one in client.replicas]) == (
        EngineState.READY, ["ready", "loading", "loading"],
    )  # fmt: skip
    assert [config.model.data_parallel_size for config in engines.configs] == [3, 3, 3]
    free_bytes = engines.made[0].spec.device_free_bytes
    assert [config.shared.free_bytes for config in engines.configs] == [
        None,
        free_bytes,
        free_bytes,
    ]
    await client.close()


async def test_calls_at_once_are_shared_out_and_figures_are_sums(
    client: ReplicasClient, engines: Engines
) -> None:
    calls = [answers(client, request(str(n), prompt(n))) for n in range(12)]
    texts = Counter(text for [text] in await asyncio.gather(*calls))
    assert texts == {f"by replica {n}": 4 for n in range(3)}
    tokens = [one.stats.generation_tokens for one in engines.made]
    assert client.stats.generation_tokens == sum(tokens)
    assert [one.num_live for one in client.replicas] == [0, 0, 0]
    assert [one.queued_tokens for one in client.replicas] == [0, 0, 0]


async def test_a_call_of_several_prompts_is_spread_and_keeps_its_order(
    client: ReplicasClient, engines: Engines
) -> None:
    """The copies of a prompt go together; outputs have the places of their requests."""
    requests = [request(f"{n}-{copy}", prompt(n)) for n in range(3) for copy in range(2)]
    texts = await answers(client, *requests)
    assert engines.num_submitted == [2, 2, 2]
    assert len(set(texts)) == 3
    assert texts[0::2] == texts[1::2]


async def test_what_is_alike_goes_where_it_is_cached(
    client: ReplicasClient, engines: Engines
) -> None:
    shared = tuple(range(7, 15))
    for n in range(9):
        await answers(client, request(str(n), prompt(*shared, 100 + n)))
    assert sorted(engines.num_submitted) == [0, 0, 9]
    assert [one.why for one in engines.decisions] == ["load"] + ["prefix"] * 8
    assert [one.reused_tokens for one in engines.decisions] == [0] + [128] * 8
    sampled = client.replicas[engines.num_submitted.index(9)]
    assert dict(sampled.num_routed) == {"load": 1, "prefix": 8}


async def test_a_conversation_finds_its_answers_again(
    client: ReplicasClient, engines: Engines, tokenizer: Tokenizer
) -> None:
    engines_reply = " ".join(["answer"] * 40)
    for one in engines.made:
        one.reply = lambda request: engines_reply
    first = request("first", prompt(5))
    tokens = [t async for output in client.generate((first,)) for t in output.token_ids]
    history = first.prompt_token_ids + tuple(tokens)
    await answers(client, request("second", (*history, 9, 9, 9)))
    assert engines.decisions[-1].reused_tokens == (len(history) - 1) // 16 * 16
    assert engines.decisions[-1].target == engines.decisions[0].target


async def test_a_session_stays_though_its_prompt_has_changed(
    client: ReplicasClient, engines: Engines
) -> None:
    for n in range(6):
        await answers(client, request(str(n), prompt(n), session=b"one call"))
    assert len({one.target for one in engines.decisions}) == 1
    assert engines.decisions[-1].why == "session"


async def test_a_prefix_that_is_not_there_any_more_is_forgotten(
    client: ReplicasClient, engines: Engines
) -> None:
    """The fakes report that nothing was cached, so nobody is believed to have what is older."""
    await answers(client, request("old", prompt(1, 2)))
    await answers(client, request("same", prompt(1, 2)))
    status = next(one for one in client.replicas if one.expected_reuse_tokens)
    assert (status.expected_reuse_tokens, status.found_reuse_tokens) == (32, 0)


async def test_a_replica_that_dies_is_left_out_at_once_and_comes_back(
    client: ReplicasClient, engines: Engines
) -> None:
    states: list[EngineState] = []
    client.on_state_change(states.append)
    streams = [client.generate((request(str(n), prompt(n)),)) for n in range(3)]
    for stream in streams:
        await anext(stream)
    lost = engines.made[1]
    lost_id = lost.submitted[0].request_id
    lost.die()
    for n, stream in enumerate(streams):
        if str(n) == lost_id:
            with pytest.raises(EngineDead):
                [output async for output in stream]
        else:
            rest = [output async for output in stream]
            assert rest[-1].finished
    assert [one.state.value for one in client.replicas] == ["ready", "loading", "ready"]
    [text] = await answers(client, request(lost_id))  # the id is free again
    assert text != "by replica 1"
    await asyncio.gather(*(answers(client, request(f"n{n}")) for n in range(6)))
    assert len(lost.submitted) == 1
    assert (client.state, client.num_restarts, states) == (EngineState.READY, 1, [])
    lost.enter(EngineState.READY)
    await asyncio.gather(*(answers(client, request(f"m{n}", prompt(n))) for n in range(6)))
    assert len(lost.submitted) > 1
    assert [one.epoch for one in client.replicas] == [0, 1, 0]


async def test_without_any_replica_the_reason_is_told(
    client: ReplicasClient, engines: Engines
) -> None:
    states: list[EngineState] = []
    client.on_state_change(states.append)
    for one in engines.made:
        one.die()
    assert states == [EngineState.LOADING]
    with pytest.raises(NotReady):
        await answers(client, request("r"))
    for one in engines.made:
        one.die(for_good=True)
    assert states == [EngineState.LOADING, EngineState.DEAD]
    with pytest.raises(EngineDead):
        await client.wait_ready()


async def test_one_that_has_no_room_is_passed_over(
    client: ReplicasClient, engines: Engines
) -> None:
    for one in engines.made[:2]:
        one.max_live = 0
    for n in range(4):
        assert await answers(client, request(str(n))) == ["by replica 2"]
    engines.made[2].max_live = 0
    with pytest.raises(Overloaded):
        await answers(client, request("r"))
    assert [one.num_live for one in client.replicas] == [0, 0, 0]


async def test_an_id_is_taken_on_all_replicas(client: ReplicasClient) -> None:
    async with aclosing(client.generate((request("r"),))) as stream:
        await anext(stream)
        with pytest.raises(InvalidRequest, match="in use"):
            await answers(client, request("r"))
    await answers(client, request("r"))


async def test_a_request_is_aborted_wherever_it_runs(
    client: ReplicasClient, engines: Engines
) -> None:
    streams = [client.generate((request(str(n)),)) for n in range(3)]
    for stream in streams:
        await anext(stream)
    assert await client.abort("1")
    assert not await client.abort("gone")
    rests = [[output async for output in stream] for stream in streams]
    reasons = [rest[-1].finish_reason for rest in rests]
    assert [str(reason) for reason in reasons] == ["stop", "abort", "stop"]


async def test_seeds_do_not_depend_on_the_replica(client: ReplicasClient, engines: Engines) -> None:
    """Drawn for the server, as with one engine, so that equal prompts get different answers."""
    await asyncio.gather(*(answers(client, request(str(n))) for n in range(6)))
    submitted = [one for engine in engines.made for one in engine.submitted]
    assert len({one.sampling.seed for one in submitted}) == 6


async def test_a_replica_is_drained_while_others_serve_and_comes_back(
    client: ReplicasClient, engines: Engines
) -> None:
    stream = client.generate((request("running"),))
    await anext(stream)
    busy = next(n for n, one in enumerate(engines.made) if one.submitted)
    draining = asyncio.create_task(client.drain_replica(f"replica-{busy}", 10.0, DRAIN))
    await until(lambda: client.replicas[busy].state is EngineState.DRAINING)
    for n in range(4):
        await answers(client, request(f"new{n}", prompt(n)))
    assert len(engines.made[busy].submitted) == 1
    rest = [output async for output in stream]
    assert rest[-1].finished
    assert await draining
    assert client.replicas[busy].state is EngineState.UNLOADED
    assert client.state is EngineState.READY
    await client.resume_replica(f"replica-{busy}")
    assert client.replicas[busy].state is EngineState.READY
    assert client.replicas[busy].epoch == 1


async def test_draining_with_a_restart_and_out_of_time(
    client: ReplicasClient, engines: Engines
) -> None:
    engines.made[0].step_s = engines.made[1].step_s = engines.made[2].step_s = 60.0
    stream = asyncio.create_task(answers(client, request("stuck")))
    await until(lambda: any(engines.num_submitted))
    busy = next(n for n, one in enumerate(engines.made) if one.submitted)
    engines.made[busy].step_s = 0.0
    restart = DrainOptions(restart=True)
    assert not await client.drain_replica(f"replica-{busy}", 0.0, restart)
    assert client.replicas[busy].state is EngineState.READY
    stream.cancel()


async def test_the_last_replica_is_drained_only_by_force(
    client: ReplicasClient, engines: Engines
) -> None:
    with pytest.raises(ReplicaNotFound, match="replica-0, replica-1, replica-2"):
        await client.drain_replica("replica-9", 1.0, DRAIN)
    for name in ("replica-0", "replica-1"):
        assert await client.drain_replica(name, 1.0, DRAIN)
    with pytest.raises(LastReplica, match="force"):
        await client.drain_replica("replica-2", 1.0, DRAIN)
    assert await client.drain_replica("replica-2", 1.0, DrainOptions(force=True))
    assert client.state is EngineState.UNLOADED
    await client.load()
    assert [one.state for one in client.replicas] == [EngineState.READY] * 3


async def test_one_that_died_for_good_is_replaced_when_asked_for(
    client: ReplicasClient, engines: Engines
) -> None:
    engines.made[0].die(for_good=True)
    assert client.state is EngineState.READY
    await client.resume_replica("replica-0")
    assert len(engines.made) == 4
    assert client.replicas[0].state is EngineState.READY
    assert (client.replicas[0].epoch, client.replicas[1].epoch) == (1, 0)


async def test_the_whole_server_drains_unloads_and_loads(
    client: ReplicasClient, engines: Engines
) -> None:
    stream = client.generate((request("r"),))
    await anext(stream)
    draining = asyncio.create_task(client.drain(10.0))
    await until(lambda: client.state is EngineState.DRAINING)
    with pytest.raises(NotReady):
        await answers(client, request("late"))
    assert [output async for output in stream][-1].finished
    assert await draining
    await client.unload(1.0)
    assert client.state is EngineState.UNLOADED
    await client.load()
    assert await answers(client, request("again"))


async def test_pins_are_given_to_all_and_to_those_that_come_later(
    client: ReplicasClient, engines: Engines
) -> None:
    tokens = tuple(range(32))
    engines.made[1].die()
    listed = await client.ask(Pin("system", tokens))
    assert isinstance(listed, PinList)
    assert [pin.name for pin in listed.pins] == ["system"]
    engines.made[1].enter(EngineState.READY)

    async def pins_of(engine: FakeEngineClient) -> list[str]:
        answer = await engine.ask(ListPins())
        assert isinstance(answer, PinList)
        return [pin.name for pin in answer.pins]

    async with asyncio.timeout(10):
        while not await pins_of(engines.made[1]):  # noqa: ASYNC110 - taught in a task of its own
            await asyncio.sleep(0)
    assert [await pins_of(one) for one in engines.made] == [["system"]] * 3
    cleared = await client.ask(ClearCache(unpin=True))
    assert [await pins_of(one) for one in engines.made] == [[]] * 3
    assert cleared is not None


async def test_a_call_goes_only_to_regions_that_it_may_be_in(
    client: ReplicasClient, engines: Engines
) -> None:
    for one, region in zip(engines.made, ("eu", "us", ""), strict=True):
        one._spec = msgspec.structs.replace(one._spec, region=region)
    for number in range(12):
        sent = request(str(number), prompt(number))
        await answers(client, msgspec.structs.replace(sent, regions=("us", "asia")))
    assert engines.num_submitted == [0, 12, 0]
    elsewhere = msgspec.structs.replace(request("x"), regions=("asia",))
    with pytest.raises(Forbidden, match=r"may be in asia only"):
        await answers(client, elsewhere)
    assert engines.num_submitted == [0, 12, 0]


async def test_others_go_on_with_the_requests_of_one_that_replaces_a_rank(
    client: ReplicasClient, engines: Engines
) -> None:
    streams = [client.generate((request(str(n), prompt(n)),)) for n in range(3)]
    for stream in streams:
        await anext(stream)
    lost = engines.made[1]
    lost_id = lost.submitted[0].request_id
    lost.lose_ranks(1)
    for n, stream in enumerate(streams):
        if str(n) == lost_id:
            with pytest.raises(EngineDead) as caught:
                [output async for output in stream]
            assert caught.value.was_cut_off
        else:
            assert [output async for output in stream][-1].finished
    await asyncio.gather(*(answers(client, request(f"n{n}")) for n in range(6)))
    assert len(lost.submitted) == 1, "as long as others are whole"
    assert client.num_restarts == 0
    for one in engines.made:
        one.lose_ranks(1)
    await answers(client, request("all the same"))
    for one in engines.made:
        one.lose_ranks()
    await asyncio.gather(*(answers(client, request(f"m{n}", prompt(n))) for n in range(6)))
    assert len(lost.submitted) > 1


async def test_a_further_replica_gets_work_once_it_is_ready(
    client: ReplicasClient, engines: Engines
) -> None:
    engines.state = EngineState.LOADING
    scaling = asyncio.create_task(client.scale(5, 1.0))
    await until(lambda: len(engines.made) == 5)
    assert [one.state for one in client.replicas][3:] == [EngineState.LOADING] * 2
    await answers(client, *(request(f"a{n}", prompt(n)) for n in range(10)))
    assert engines.num_submitted[3:] == [0, 0]
    for one in engines.made[3:]:
        one.enter(EngineState.READY)
    assert await scaling
    assert [one.replica_id for one in client.replicas] == [f"replica-{n}" for n in range(5)]
    await answers(client, *(request(f"b{n}", prompt(20 + n)) for n in range(25)))
    assert 0 not in engines.num_submitted
    shares = [one.model.data_parallel_size for one in engines.configs]
    assert shares == [3, 3, 3, 5, 5]


async def test_fewer_replicas_lose_nothing_and_nothing_that_was_counted(
    client: ReplicasClient, engines: Engines
) -> None:
    for one in engines.made:
        one.step_s = 0.005
    calls = asyncio.gather(*(answers(client, request(f"r{n}", prompt(n))) for n in range(12)))
    await until(lambda: all(engines.num_submitted))
    assert await client.scale(1, 10.0)
    assert [one.state for one in engines.made[1:]] == [EngineState.DEAD] * 2
    texts = [text for [text] in await calls]
    assert {text.strip() for text in texts} == {f"by replica {n}" for n in range(3)}
    assert [one.replica_id for one in client.replicas] == ["replica-0"]
    total = sum(len(one.submitted) for one in engines.made)
    assert total == 12
    before = client.stats.generation_tokens
    assert before == sum(one.stats.generation_tokens for one in engines.made)
    assert await client.scale(2, 1.0)
    assert [one.replica_id for one in client.replicas] == ["replica-0", "replica-1"]
    assert client.stats.generation_tokens == before


async def test_who_does_not_serve_goes_first_also_if_it_is_the_first_one(
    client: ReplicasClient, engines: Engines
) -> None:
    engines.made[0].enter(EngineState.DEAD)
    await client.scale(2, 1.0)
    await client.scale(1, 1.0)
    assert [one.replica_id for one in client.replicas] == ["replica-1"]
    assert await answers(client, request("r")) == ["by replica 1"]
    assert client.spec == engines.made[1].spec
    await client.scale(2, 1.0)
    assert [one.replica_id for one in client.replicas] == ["replica-1", "replica-0"]


async def test_what_cannot_be_loaded_is_no_replica(
    client: ReplicasClient, engines: Engines
) -> None:
    engines.state = EngineState.DEAD
    with pytest.raises(NotReady):
        await client.scale(4, 1.0)
    assert len(client.replicas) == 3
    assert client.state is EngineState.READY


@pytest.mark.parametrize("number", [0, 65])
async def test_a_number_that_cannot_be_is_refused(client: ReplicasClient, number: int) -> None:
    with pytest.raises(Unsupported, match="1 to 64"):
        await client.scale(number, 1.0)


@given(
    states=st.lists(st.sampled_from(EngineState), min_size=1, max_size=8),
    num_wanted=st.integers(1, 10),
)
def test_as_many_as_are_wanted_stay_and_the_best(
    states: list[EngineState], num_wanted: int
) -> None:
    named = [(f"replica-{n}", state) for n, state in enumerate(states)]
    going = names_to_go(named, num_wanted)
    coming = names_to_come([name for name, _ in named], num_wanted)
    assert len(set(going)) == max(0, len(named) - num_wanted)
    assert len(set(coming)) == max(0, num_wanted - len(named))
    assert not {name for name, _ in named} & set(coming)
    ready = [name for name, state in named if state is EngineState.READY]
    if set(going) & set(ready):
        assert all(name in ready for name, _ in named if name not in going)
