"""ProcessClient over a scripted engine: what dies, ends or is asked for at the wrong moment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine import process_client
from novacron.engine.client import EngineState
from novacron.engine.engine_process import EngineProcess
from novacron.engine.heart_monitor import VitalSigns
from novacron.engine.process_client import ProcessClient, most_live
from novacron.engine.pulse import Reading
from novacron.engine.structured_output import GrammarCompiler
from novacron.errors import (
    EngineDead,
    InvalidRequest,
    ModelLoadError,
    NotReady,
    NovaCronError,
    Overloaded,
    PinLimit,
)
from novacron.records import wire
from novacron.records.cache_orders import CacheAnswer, ListPins, PinList, Refused
from novacron.records.output import EngineOutput, EngineStats, ModelSpec, RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams, StructuredOutput
from novacron.records.step import PositionLogprobs
from novacron.testing.tiny_models import write_tiny_tokenizer
from novacron.testing.waiting import until

PATIENCE_S = 20.0
SPEC = ModelSpec(
    name="scripted",
    model_version="0",
    architecture="none",
    vocab_size=200,
    hidden_size=8,
    max_model_len=100,
    eos_token_ids=(0,),
    dtype="float32",
    device="cpu",
    num_parameters=1,
    weight_bytes=4,
    num_blocks=7,
    block_size=16,
    kv_cache_bytes=1,
)


class ScriptedEngine(EngineProcess):
    """Says and does what the test tells it to; ends when it is told to, unless it is stubborn."""

    def __init__(self) -> None:
        self.received: list[wire.ToEngine] = []
        self.listens = True
        self.is_stubborn = False
        self.has_pulse = True
        self.goes_on_talking = False  # after it was given up
        self._num_beats = 0
        self._says: asyncio.Queue[wire.FromEngine | None] = asyncio.Queue()
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._closed = False

    @property
    def pid(self) -> int:
        return 4711

    link_stats = None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def has_ended(self) -> bool:
        return self._exit_code.done()

    def say(self, message: wire.FromEngine) -> None:
        self._says.put_nowait(message)

    def become_ready(self) -> None:
        self.say(wire.Ready(wire.WIRE_VERSION, SPEC))

    def die(self, exit_code: int = -9) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(exit_code)

    def send(self, message: wire.ToEngine) -> bool:
        if self._closed or not self.listens:
            return False
        self.received.append(message)
        if isinstance(message, wire.Shutdown) and not self.is_stubborn:
            self.die(0)
        return True

    def vital_signs(self, rank_pids: tuple[int, ...]) -> VitalSigns:
        self._num_beats += self.has_pulse
        return VitalSigns(Reading(self._num_beats, 0))

    async def messages(self) -> AsyncIterator[wire.FromEngine]:
        while (message := await self._says.get()) is not None:
            yield message

    async def wait(self) -> int:
        return await asyncio.shield(self._exit_code)

    def kill(self) -> None:
        self.die()

    def close(self) -> None:
        self._closed = True
        if not self.goes_on_talking:
            self._says.put_nowait(None)


class Setting:
    """A client and the engines that it has started so far."""

    def __init__(self, tokenizer_folder: Path) -> None:
        self.engines: list[ScriptedEngine] = []
        self.refusal_to_start: OSError | None = None
        config = self.config = EngineConfig(
            model=ModelConfig(tokenizer=str(tokenizer_folder)),
            scheduler=SchedulerConfig(
                max_num_seqs=1, max_queued_requests=1, scheduling_policy="fcfs"
            ),
        )
        self.client = ProcessClient(
            config,
            tokenizer_folder,
            make_process=self._make,
        )
        self.states: list[EngineState] = []
        self.client.on_state_change(self.states.append)

    def _make(self, config: EngineConfig, model_path: Path) -> ScriptedEngine:
        if self.refusal_to_start is not None:
            raise self.refusal_to_start
        self.engines.append(ScriptedEngine())
        return self.engines[-1]

    @property
    def engine(self) -> ScriptedEngine:
        return self.engines[-1]

    async def until_started(self, num_engines: int) -> None:
        await until(lambda: len(self.engines) >= num_engines, PATIENCE_S)

    async def until_state(self, state: EngineState) -> None:
        await until(lambda: self.client.state is state, PATIENCE_S)

    async def make_ready(self) -> None:
        self.engine.become_ready()
        await asyncio.wait_for(self.client.wait_ready(), PATIENCE_S)

    async def start_request(self, request_id: str = "r") -> asyncio.Task[list[RequestOutput]]:
        """Returns once the engine has it."""
        task = asyncio.create_task(read_all(self.client, request_id))
        received = self.engine.received
        await until(lambda: any(isinstance(m, wire.Submit) for m in received), PATIENCE_S)
        return task


def make_request(request_id: str, sampling: SamplingParams | None = None) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(5, 6, 7),
        sampling=sampling or SamplingParams(),
        arrival_time_s=time.monotonic(),
    )


async def read_all(
    client: ProcessClient, request_id: str = "r", sampling: SamplingParams | None = None
) -> list[RequestOutput]:
    requests = (make_request(request_id, sampling),)
    return [output async for output in client.generate(requests)]


async def failure_of(task: asyncio.Task[list[RequestOutput]]) -> NovaCronError:
    with pytest.raises(NovaCronError) as caught:
        await asyncio.wait_for(task, PATIENCE_S)
    return caught.value


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return folder


@pytest.fixture
async def setting(tokenizer_folder: Path) -> AsyncIterator[Setting]:
    setting = Setting(tokenizer_folder)
    await setting.client.start()
    yield setting
    await setting.client.close()


@pytest.fixture
async def ready(setting: Setting) -> Setting:
    await setting.make_ready()
    return setting


async def test_an_engine_that_does_not_listen_any_more_fails_the_request_at_once(
    ready: Setting,
) -> None:
    ready.engine.listens = False  # dead, and nobody has noticed yet
    with pytest.raises(EngineDead, match="sent again"):
        await asyncio.wait_for(read_all(ready.client), PATIENCE_S)
    ready.engine.listens = True
    task = await ready.start_request("another")
    ready.engine.die()
    await failure_of(task)


async def test_a_message_that_cannot_be_handled_restarts_the_engine(ready: Setting) -> None:
    task = await ready.start_request()
    impossible = EngineOutput("r", prompt_logprobs=(PositionLogprobs((), (), 1),))  # of no token
    ready.engine.say(wire.Outputs((impossible,), EngineStats()))
    assert isinstance(await failure_of(task), EngineDead)
    await ready.until_started(num_engines=2)
    await ready.make_ready()


async def test_what_a_dead_engine_said_last_is_delivered(ready: Setting) -> None:
    task = await ready.start_request()
    final = EngineOutput("r", new_token_ids=(5,), finish_reason=FinishReason.LENGTH)
    ready.engine.die()
    ready.engine.say(wire.Outputs((final,), EngineStats()))
    outputs = await asyncio.wait_for(task, PATIENCE_S)
    assert outputs[-1].finish_reason is FinishReason.LENGTH


async def test_an_engine_without_a_pulse_is_killed_and_its_late_messages_are_passed_over(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_client, "_LOOK_S", 0.001)
    monkeypatch.setattr(setting.client, "_config", replace(setting.config, heartbeat_timeout=0.1))
    first = setting.engine
    setting.client._watch(first)  # with the times just set
    await setting.make_ready()
    task = await setting.start_request()
    first.has_pulse, first.goes_on_talking = False, True
    assert isinstance(await failure_of(task), EngineDead)
    assert first.has_ended
    await setting.until_started(num_engines=2)
    await setting.make_ready()
    task = await setting.start_request()
    late = EngineOutput("r", new_token_ids=(9,), finish_reason=FinishReason.LENGTH)
    first.say(wire.Outputs((late,), EngineStats(num_steps=7)))
    own = EngineOutput("r", new_token_ids=(5,), finish_reason=FinishReason.LENGTH)
    setting.engine.say(wire.Outputs((own,), EngineStats(num_steps=8)))
    outputs = await asyncio.wait_for(task, PATIENCE_S)
    assert [output.token_ids for output in outputs] == [(5,)]
    assert setting.client.stats.num_steps == 8


async def test_a_late_message_of_an_engine_that_was_given_up_changes_nothing(
    ready: Setting,
) -> None:
    first = ready.engine
    first.goes_on_talking = True
    first.die()
    await ready.until_started(num_engines=2)
    first.become_ready()
    await asyncio.sleep(0.01)
    assert ready.client.state is EngineState.LOADING
    await ready.make_ready()


async def test_an_engine_that_ends_while_it_is_asked_to_is_not_ready_again(
    setting: Setting,
) -> None:
    """Unloading while it loads: the Ready that was under way comes too late."""
    setting.engine.is_stubborn = True
    unloading = asyncio.create_task(setting.client.unload(PATIENCE_S))
    await asyncio.sleep(0)
    setting.engine.become_ready()
    await asyncio.wait_for(unloading, PATIENCE_S)
    assert setting.states == [EngineState.UNLOADED]
    assert setting.client.engine_pid is None


async def test_load_during_unload_brings_the_model_back(ready: Setting) -> None:
    task = await ready.start_request()
    unloading = asyncio.create_task(ready.client.unload(PATIENCE_S))
    await ready.until_state(EngineState.DRAINING)
    loading = asyncio.create_task(ready.client.load())
    await asyncio.sleep(0)
    assert not loading.done()
    final = EngineOutput("r", finish_reason=FinishReason.LENGTH)
    ready.engine.say(wire.Outputs((final,), EngineStats()))
    assert (await task)[-1].finished
    await unloading
    await ready.until_started(num_engines=2)
    ready.engine.become_ready()
    await asyncio.wait_for(loading, PATIENCE_S)
    assert ready.client.state is EngineState.READY


async def test_requests_whose_grammar_compiles_count_as_waiting(
    ready: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    def compile_slowly(compiler: GrammarCompiler, spec: StructuredOutput) -> None:
        may_go_on.wait(PATIENCE_S)
        if spec.spec == "bad":
            raise InvalidRequest("no grammar")

    monkeypatch.setattr(GrammarCompiler, "compile", compile_slowly)
    wanted = [SamplingParams(structured_output=StructuredOutput("regex", s)) for s in ("bad", "b")]
    tasks = [
        asyncio.create_task(read_all(ready.client, s.structured_output.spec, s)) for s in wanted
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 requests are running or waiting"):
        await asyncio.wait_for(read_all(ready.client, "one too many"), PATIENCE_S)
    may_go_on.set()
    assert isinstance(await failure_of(tasks[0]), InvalidRequest)
    in_its_place = asyncio.create_task(read_all(ready.client, "another"))
    await until(lambda: len(ready.engine.received) == 2, PATIENCE_S)
    with pytest.raises(Overloaded, match="2 requests are running or waiting"):
        await asyncio.wait_for(read_all(ready.client, "again one too many"), PATIENCE_S)
    ready.engine.die()
    await failure_of(tasks[1])
    await failure_of(in_its_place)


async def test_statistics_do_not_tell_of_requests_of_an_engine_that_is_gone(ready: Setting) -> None:
    busy = EngineStats(
        num_running=1, num_waiting=2, num_blocks=7, num_used_blocks=3, num_cached_blocks=1,
        generation_tokens=5,
    )  # fmt: skip
    gone = EngineStats(generation_tokens=5)
    for end in (ready.engine.die, lambda: asyncio.create_task(ready.client.unload(PATIENCE_S))):
        ready.engine.say(wire.Outputs((), busy))
        await until(lambda: ready.client.stats == busy, PATIENCE_S)
        end()
        await until(lambda: ready.client.stats == gone, PATIENCE_S)
        if ready.client.state is EngineState.LOADING:
            await ready.until_started(num_engines=2)
            await ready.make_ready()
            assert ready.client.stats == EngineStats(num_blocks=7)


async def test_two_loads_at_once_start_one_engine(ready: Setting) -> None:
    await ready.client.unload(PATIENCE_S)
    loads = [asyncio.create_task(ready.client.load()) for _ in range(2)]
    await ready.until_started(num_engines=2)
    ready.engine.become_ready()
    await asyncio.wait_for(asyncio.gather(*loads), PATIENCE_S)
    assert len(ready.engines) == 2


async def test_unload_during_load_wakes_who_waits_for_the_load(ready: Setting) -> None:
    await ready.client.unload(PATIENCE_S)
    loading = asyncio.create_task(ready.client.load())
    await ready.until_started(num_engines=2)
    await asyncio.wait_for(ready.client.unload(PATIENCE_S), PATIENCE_S)
    with pytest.raises(NotReady, match="unloaded"):
        await asyncio.wait_for(loading, PATIENCE_S)


async def test_death_while_it_drains_for_an_unload_only_hastens_it(ready: Setting) -> None:
    task = await ready.start_request()
    unloading = asyncio.create_task(ready.client.unload(PATIENCE_S))
    await ready.until_state(EngineState.DRAINING)
    ready.engine.die()
    assert isinstance(await failure_of(task), EngineDead)
    await asyncio.wait_for(unloading, PATIENCE_S)
    assert ready.client.state is EngineState.UNLOADED
    loading = asyncio.create_task(ready.client.load())
    await ready.until_started(num_engines=2)
    await ready.make_ready()
    await loading


async def test_death_while_it_drains_for_the_end_is_the_end(ready: Setting) -> None:
    task = await ready.start_request()
    draining = asyncio.create_task(ready.client.drain(PATIENCE_S))
    await ready.until_state(EngineState.DRAINING)
    ready.engine.die()
    await failure_of(task)
    assert await draining
    assert ready.client.state is EngineState.DEAD
    assert len(ready.engines) == 1


async def test_close_during_load_and_during_unload_is_final(ready: Setting) -> None:
    task = await ready.start_request()
    unloading = asyncio.create_task(ready.client.unload(PATIENCE_S))
    await ready.until_state(EngineState.DRAINING)
    loading = asyncio.create_task(ready.client.load())
    await asyncio.sleep(0)
    await ready.client.close()
    assert isinstance(await failure_of(task), EngineDead)
    await asyncio.wait_for(unloading, PATIENCE_S)
    with pytest.raises(NotReady, match="shutting down"):
        await asyncio.wait_for(loading, PATIENCE_S)
    assert ready.states[-1] is EngineState.DEAD
    assert [engine.has_ended for engine in ready.engines] == [True]


async def test_close_while_it_loads_does_not_wait_for_the_loading(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_client, "_END_PATIENCE_S", 3600.0)
    setting.engine.is_stubborn = True  # it is loading: it does not read what it is sent
    waiting = asyncio.create_task(setting.client.wait_ready())
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await setting.client.close()
        with pytest.raises(NotReady, match="shutting down"):
            await waiting


async def test_unload_between_death_and_restart_cancels_the_restart(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_client, "_RESTART_DELAYS_S", (0.02, 0.02))
    setting.engine.die()
    await until(lambda: setting.client.engine_pid is None, PATIENCE_S)
    await setting.client.unload(PATIENCE_S)
    await asyncio.sleep(0.1)
    assert setting.client.state is EngineState.UNLOADED
    assert len(setting.engines) == 1


async def test_a_system_without_room_for_another_process_is_told(ready: Setting) -> None:
    ready.refusal_to_start = OSError(11, "Resource temporarily unavailable")
    ready.engine.die()
    await ready.until_state(EngineState.DEAD)
    with pytest.raises(EngineDead, match="temporarily unavailable"):
        await ready.client.wait_ready()


async def test_an_engine_that_dies_too_often_is_given_up(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_client, "_RESTART_DELAYS_S", (0.0, 0.0))
    for num_engines in (1, 2, 3):
        await setting.until_started(num_engines)
        setting.engine.die()
    await setting.until_state(EngineState.DEAD)
    with pytest.raises(EngineDead, match="too often"):
        await read_all(setting.client)
    assert len(setting.engines) == 3


async def test_a_failed_start_is_told_to_everyone_in_the_engines_words(setting: Setting) -> None:
    setting.engine.say(wire.Failed("ModelLoadError", "weights are cut off"))
    setting.engine.die(3)
    tracebacks = []
    for _ in range(3):
        with pytest.raises(ModelLoadError, match="cut off") as caught:
            await asyncio.wait_for(read_all_when_settled(setting.client), PATIENCE_S)
        tracebacks.append(len(caught.traceback))
    assert len(setting.engines) == 1
    assert tracebacks[0] == tracebacks[-1]  # raised again and again, it must not grow


async def read_all_when_settled(client: ProcessClient) -> list[RequestOutput]:
    await client.wait_ready()
    return await read_all(client)


async def ask(setting: Setting) -> asyncio.Task[CacheAnswer]:
    """Returns once the engine has the question."""
    task = asyncio.create_task(setting.client.ask(ListPins()))
    await until(lambda: bool(questions_of(setting)), PATIENCE_S)
    return task


def questions_of(setting: Setting) -> list[wire.Ask]:
    return [message for message in setting.engine.received if isinstance(message, wire.Ask)]


async def test_a_question_gets_its_own_answer(ready: Setting) -> None:
    tasks = [asyncio.create_task(ready.client.ask(ListPins(bytes([n]) * 8))) for n in range(3)]
    await until(lambda: len(questions_of(ready)) == 3, PATIENCE_S)
    for question in reversed(questions_of(ready)):
        answer = PinList((), question.order.scope[0], 9, 1)  # type: ignore[union-attr]
        ready.engine.say(wire.Answer(question.number, answer))
    answers = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
    assert answers == [PinList((), n, 9, 1) for n in range(3)]


async def test_what_the_engine_refuses_is_raised_as_what_it_is(ready: Setting) -> None:
    for kind, expected in (("PinLimit", PinLimit), ("InvalidRequest", InvalidRequest)):
        ready.engine.received.clear()
        task = await ask(ready)
        [question] = questions_of(ready)
        ready.engine.say(wire.Answer(question.number, Refused(kind, "because")))
        with pytest.raises(expected, match="because"):
            await asyncio.wait_for(task, PATIENCE_S)


async def test_nobody_waits_for_the_answer_of_a_dead_engine(ready: Setting) -> None:
    task = await ask(ready)
    ready.engine.die()
    with pytest.raises(EngineDead):
        await asyncio.wait_for(task, PATIENCE_S)
    with pytest.raises(NotReady):
        await ready.client.ask(ListPins())


async def test_an_answer_that_nobody_waits_for_any_more_is_passed_over(ready: Setting) -> None:
    task = await ask(ready)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    [question] = questions_of(ready)
    ready.engine.say(wire.Answer(question.number, PinList((), 0, 0, 0)))
    ready.engine.say(wire.Outputs((), EngineStats(num_steps=3)))
    await until(lambda: ready.client.stats.num_steps == 3, PATIENCE_S)


async def test_a_request_that_the_engine_sheds_was_refused(ready: Setting) -> None:
    task = await ready.start_request("shed")
    final = EngineOutput("shed", finish_reason=FinishReason.ERROR, error="full", was_shed=True)
    ready.engine.say(wire.Outputs((final,), EngineStats()))
    failure = await failure_of(task)
    assert isinstance(failure, Overloaded)
    assert (str(failure), failure.retry_after_s) == ("full", 1.0)


def test_where_the_engine_chooses_who_goes_more_may_get_there() -> None:
    limits = {"max_num_seqs": 4, "max_queued_requests": 10}
    assert most_live(SchedulerConfig(**limits, scheduling_policy="fcfs")) == 14
    assert most_live(SchedulerConfig(**limits)) == 24
