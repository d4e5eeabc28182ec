"""ProcessClient: an engine in a process of its own, started, watched and restarted from here.

One per API process. The engine's death fails what ran on it (EngineDead) within milliseconds of
the kernel telling us, and a new one is started; a start-up that fails for a lasting reason is
reported once and not tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from novacron import errors
from novacron.config.engine import EngineConfig
from novacron.engine.admission import admit
from novacron.engine.client import EngineState
from novacron.engine.engine_arguments import EngineArguments
from novacron.engine.request_streams import RequestStreams
from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.records import wire
from novacron.records.output import EngineStats, ModelSpec, RequestOutput
from novacron.records.request import Request

_RESTART_DELAYS_S = (0.0, 1.0, 2.0, 4.0, 8.0)  # deaths in a row before Ready was reached
# Threads of torch's OpenMP that spin at barriers slow a step down tenfold as soon as anything else
# wants their core, and something does: this process, at every token. The user's environment wins.
_THREADS_THAT_SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
_END_PATIENCE_S = 5.0
_LAST_WORDS_S = 0.05  # what a process sent before it died still arrives

logger = logging.getLogger(__name__)


class ProcessClient:
    """An EngineClient whose engine is a child process.

    `spawn` may be called before there is an event loop, so that the child imports and loads while
    this process imports the gateway; `start` takes over on the loop.
    """

    def __init__(self, config: EngineConfig, model_path: Path) -> None:
        self._config = config
        self._model_path = model_path
        self._state = EngineState.LOADING
        self._progress = ("start", 0.0)
        self._spec: ModelSpec | None = None
        self._tokenizer: Tokenizer | None = None
        self._grammars: GrammarCompiler | None = None
        self._stats = EngineStats()
        self._streams = RequestStreams()
        self._seeds = random.Random(config.model.seed)
        self._max_live = config.scheduler.max_num_seqs + config.scheduler.max_queued_requests
        self._callbacks: list[Callable[[EngineState], None]] = []
        self._ready = asyncio.Event()
        self._failure: errors.NovaCronError | None = None
        self._deaths_in_a_row = 0
        self._num_restarts = 0
        self._engine: _EngineProcess | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def loading_progress(self) -> tuple[str, float]:
        return self._progress

    @property
    def spec(self) -> ModelSpec:
        if self._spec is None:
            raise self._not_ready()
        return self._spec

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise self._not_ready()
        return self._tokenizer

    @property
    def stats(self) -> EngineStats:
        return self._stats

    @property
    def num_restarts(self) -> int:
        return self._num_restarts

    @property
    def engine_pid(self) -> int | None:
        return None if self._engine is None else self._engine.pid

    def on_state_change(self, callback: Callable[[EngineState], None]) -> None:
        self._callbacks.append(callback)

    def spawn(self) -> None:
        """Start the engine process at once. Needs no event loop."""
        self._engine = _EngineProcess(self._config, self._model_path)

    async def start(self) -> None:
        """Take charge of the engine process, started here if `spawn` was not called.

        Returns before the model is loaded. Raises ModelLoadError if the tokenizer is unusable.
        """
        if self._engine is None:
            self.spawn()
        assert self._engine is not None
        self._watch(self._engine)
        self._tokenizer = await asyncio.to_thread(self._load_tokenizer)

    async def wait_ready(self) -> None:
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure

    async def generate(self, requests: tuple[Request, ...]) -> AsyncGenerator[RequestOutput, None]:
        if self._state is not EngineState.READY:
            raise self._failure or self._not_ready()
        admitted = tuple(admit(request, self.spec, self._seeds) for request in requests)
        await self._check_grammars(admitted)
        engine = self._engine
        if engine is None or self._state is not EngineState.READY:  # it ended while we compiled
            raise self._not_ready()
        self._refuse_if_full(len(admitted))
        stream = self._streams.open(admitted, self.tokenizer)
        engine.send(wire.Submit(admitted))
        try:
            while not stream.ended:
                for output in await stream.next():
                    yield output
        finally:
            self._abort_in(engine, self._streams.close(stream))

    async def abort(self, request_id: str) -> bool:
        live = self._streams.abort(request_id)
        if live and self._engine is not None:
            self._abort_in(self._engine, (request_id,))
        return live

    async def drain(self, timeout_s: float) -> bool:
        if self._state is EngineState.READY:
            self._enter(EngineState.DRAINING)
        try:
            await asyncio.wait_for(self._streams.wait_idle(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def unload(self, timeout_s: float) -> None:
        if self._state in (EngineState.UNLOADED, EngineState.DEAD):
            return
        await self.drain(timeout_s)
        await self._end_engine()
        self._ready.clear()
        self._enter(EngineState.UNLOADED)

    async def load(self) -> None:
        if self._state is EngineState.UNLOADED:
            self._enter(EngineState.LOADING)
            self._respawn()
        await self.wait_ready()

    async def close(self) -> None:
        await self._end_engine()
        self._failure = self._failure or errors.NotReady("The server is shutting down.")
        self._enter(EngineState.DEAD)
        self._ready.set()

    def _load_tokenizer(self) -> Tokenizer:
        model = self._config.model
        template = Path(model.chat_template) if model.chat_template else None
        return Tokenizer.load(Path(model.tokenizer or self._model_path), template)

    async def _check_grammars(self, requests: tuple[Request, ...]) -> None:
        """Compile, beside the event loop, what the engine will compile: errors are for the client
        to mend, so they must come before anything runs."""
        for spec in {request.sampling.structured_output for request in requests}:
            if spec is not None:
                await asyncio.to_thread(self._grammar_compiler().compile, spec)

    def _grammar_compiler(self) -> GrammarCompiler:
        if self._grammars is None:
            spec = self.spec
            self._grammars = GrammarCompiler(
                self.tokenizer.json_text, spec.vocab_size, spec.eos_token_ids
            )
        return self._grammars

    def _refuse_if_full(self, num_new: int) -> None:
        if len(self._streams) + num_new > self._max_live:
            raise errors.Overloaded(
                f"The queue is full: {len(self._streams)} requests are running or waiting, and at "
                f"most {self._max_live} may. Try again later, or raise max_queued_requests."
            )

    def _not_ready(self) -> errors.NotReady:
        phase, fraction = self._progress
        match self._state:
            case EngineState.DRAINING:
                return errors.NotReady("The server is finishing its work before it ends.", 5.0)
            case EngineState.UNLOADED:
                return errors.NotReady("The model is unloaded; load it first.", 5.0)
            case _:
                return errors.NotReady(f"The model is loading: {phase}, {fraction:.0%}.")

    def _abort_in(self, engine: _EngineProcess, request_ids: tuple[str, ...]) -> None:
        if request_ids and engine is self._engine:
            engine.send(wire.Abort(request_ids))

    def _enter(self, state: EngineState) -> None:
        if state is self._state:
            return
        self._state = state
        for callback in self._callbacks:
            callback(state)

    def _watch(self, engine: _EngineProcess) -> None:
        for duty in (self._read(engine), self._await_death(engine)):
            task = asyncio.get_running_loop().create_task(duty)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read(self, engine: _EngineProcess) -> None:
        async for message in engine.messages():
            match message:
                case wire.Outputs(outputs, stats):
                    self._stats = stats
                    self._abort_in(engine, self._streams.deliver(outputs))
                case wire.Loading(phase, fraction):
                    self._progress = (phase, fraction)
                case wire.Ready(version, spec):
                    self._become_ready(version, spec)
                case wire.Failed(kind, text):
                    error_class = getattr(errors, kind, errors.ModelLoadError)
                    self._give_up(_as_error(error_class, text))

    def _become_ready(self, version: int, spec: ModelSpec) -> None:
        if version != wire.WIRE_VERSION:
            self._give_up(errors.ConfigError(f"The engine speaks wire version {version}."))
            return
        names = self._config.model.served_model_name
        self._spec = msgspec.structs.replace(spec, name=names[0]) if names else spec
        self._stats = EngineStats(num_blocks=spec.num_blocks)
        self._progress = ("ready", 1.0)
        self._deaths_in_a_row = 0
        if self._state is EngineState.LOADING:
            self._enter(EngineState.READY)
        self._ready.set()

    def _give_up(self, failure: errors.NovaCronError) -> None:
        self._failure = failure
        self._streams.fail_all(failure)
        self._enter(EngineState.DEAD)
        self._ready.set()

    async def _await_death(self, engine: _EngineProcess) -> None:
        exit_code = await engine.wait()
        await asyncio.sleep(_LAST_WORDS_S)
        if engine is not self._engine or self._state is EngineState.DEAD:
            return
        self._deaths_in_a_row += 1
        cause = f"The engine process ended unexpectedly (exit code {exit_code})."
        logger.error("%s", cause)
        self._streams.fail_all(errors.EngineDead(f"{cause} The request can be sent again."))
        engine.close()
        if self._state is EngineState.DRAINING:
            self._give_up(errors.EngineDead(f"{cause} It is not restarted while draining."))
            return
        if self._deaths_in_a_row > len(_RESTART_DELAYS_S):
            self._give_up(errors.EngineDead(f"{cause} It failed too often to be tried again."))
            return
        self._ready.clear()
        self._enter(EngineState.LOADING)
        await asyncio.sleep(_RESTART_DELAYS_S[self._deaths_in_a_row - 1])
        if engine is self._engine:
            self._num_restarts += 1
            self._respawn()

    def _respawn(self) -> None:
        self._progress = ("start", 0.0)
        self.spawn()
        assert self._engine is not None
        self._watch(self._engine)

    async def _end_engine(self) -> None:
        engine, self._engine = self._engine, None
        self._streams.fail_all(errors.EngineDead("The engine was shut down."))
        if engine is not None:
            await engine.end(_END_PATIENCE_S)


def _as_error(error_class: type[errors.NovaCronError], text: str) -> errors.NovaCronError:
    """An error of the class that the engine process named, with the engine's words."""
    error = error_class.__new__(error_class)
    Exception.__init__(error, text)
    return error


class _EngineProcess:
    """One child process and the two sockets that lead to it."""

    def __init__(self, config: EngineConfig, model_path: Path) -> None:
        self._folder = tempfile.mkdtemp(prefix="novacron-")  # mode 0700: nobody else may connect
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._outgoing = context.socket(zmq.PUSH)
        self._incoming = context.socket(zmq.PULL)
        self._reader: zmq.asyncio.Socket | None = None
        endpoints = {}
        for name, socket in (("inbox", self._outgoing), ("outbox", self._incoming)):
            socket.set_hwm(0)
            endpoints[name] = f"ipc://{self._folder}/{name}"
            socket.bind(endpoints[name])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "novacron.engine"],
            stdin=subprocess.PIPE,
            env=_THREADS_THAT_SLEEP | os.environ,
            start_new_session=True,  # a terminal's Ctrl-C is for the server, which then drains
        )
        arguments = EngineArguments(config=config, model_path=str(model_path), **endpoints)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(arguments) + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: wire.ToEngine) -> None:
        """Never blocks, and never fails: a dead engine is noticed by `wait`."""
        if self._outgoing.closed:
            return
        with contextlib.suppress(zmq.Again):  # nobody listens: it is starting, or gone
            self._outgoing.send(wire.encode(message), zmq.NOBLOCK)

    async def messages(self) -> AsyncIterator[wire.FromEngine]:
        """What the engine sends, until `close`, which ends the iteration by cancelling it."""
        self._reader = zmq.asyncio.Socket.from_socket(self._incoming)
        while True:
            yield wire.decode_from_engine(await self._reader.recv())

    async def wait(self) -> int:
        """The exit code, once the process has ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()

        def tell(exit_code: int) -> None:
            if not ended.done():
                ended.set_result(exit_code)

        def watch() -> None:
            exit_code = self._process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting
                loop.call_soon_threadsafe(tell, exit_code)

        threading.Thread(target=watch, daemon=True, name="engine-watch").start()
        return await ended

    async def end(self, patience_s: float) -> None:
        """Ask the process to end; insist after `patience_s`."""
        self.send(wire.Shutdown())
        try:
            await asyncio.to_thread(self._process.wait, patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self.close()

    def close(self) -> None:
        if self._reader is not None:  # leaves the event loop before its descriptor is closed
            self._reader.close(linger=0)
        for socket in (self._outgoing, self._incoming):
            socket.close(linger=0)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)
