"""The engine process: inbox -> EngineCore.step -> outbox, until told to end.

Started by ProcessClient as `python -m novacron.engine` with its EngineArguments as one
line of JSON on standard input. Ends when standard input is closed, so that it never outlives its
client. Exit codes: 0 asked to end, 3 start-up failed for a reason that a restart would not cure
(sent as Failed before), anything else a crash.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import psutil
import zmq

from novacron.config.engine import EngineConfig
from novacron.engine.cache_books import AroundChoice, as_it_is, build_cache_desk
from novacron.engine.core import EngineCore
from novacron.engine.draft_pair import find_draft_model
from novacron.engine.engine_arguments import EngineArguments
from novacron.engine.engine_handle import EXIT_RANK_LOST
from novacron.engine.kv_trace import KVTrace
from novacron.engine.link.linked_ranks import load_linked_model, parent_name
from novacron.engine.output_pacer import OutputPacer
from novacron.engine.pulse import Pulse, PulseMemory
from novacron.engine.rank_news import RankNews
from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.engine.watched_answers import WatchedAnswers
from novacron.errors import EngineDead, NovaCronError
from novacron.executor.blueprint import steps_in_flight
from novacron.executor.executor import Executor
from novacron.executor.hosts.linked_pipeline import LinkedPipelineExecutor
from novacron.executor.hosts.linked_slices import LinkedSlicesExecutor
from novacron.executor.inline import InlineExecutor
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.executor.parallel_limits import refuse_with_ranks, without_tiers
from novacron.executor.pipeline import PipelineExecutor
from novacron.executor.quality_watch import QualityWatch
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.observability.logs import configure_logging
from novacron.quality.document import Document
from novacron.records import wire
from novacron.records.output import EngineOutput, WatchStats
from novacron.records.request import Request
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.scheduler import Scheduler
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.speculation_choice import build_speculation

EXIT_FAILED = 3
_EXIT_CRASHED = 1
_COMPILING_POLL_MS = 1
_WATCH_POLL_MS = 50
_NEWS_POLL_MS = 50
_RANKS_POLL_MS = 250

AnyExecutor = (
    InlineExecutor
    | MultiprocessExecutor
    | PipelineExecutor
    | LinkedPipelineExecutor
    | LinkedSlicesExecutor
)

logger = logging.getLogger(__name__)


def _ignore(message: str) -> None:
    pass


def load_executor(
    config: EngineConfig,
    model_path: Path,
    progress: Callable[[str, float], None],
    on_loss: Callable[[str], None] = _ignore,
    owner: str = "",
) -> AnyExecutor:
    """The executor of an engine, its models loaded. `on_loss` is that of MultiprocessExecutor;
    `owner` names who starts the engine anew to ranks on other hosts, if it is not this process.
    Raises ConfigError and ModelLoadError."""
    refuse_with_ranks(config)
    if config.apart.hosts:
        find_draft_model(config, model_path)  # refuses settings that contradict each other
        return load_linked_model(config, model_path, progress, on_loss, owner)
    if config.model.pipeline_parallel_size > 1:
        find_draft_model(config, model_path)  # refuses settings that contradict each other
        one_at_a_time = steps_in_flight(config.model) == 1
        return PipelineExecutor(
            config.model,
            config.cache if one_at_a_time else without_tiers(config.cache),
            config.scheduler,
            model_path=model_path,
            progress=progress,
            speculative=config.speculative,
            on_loss=on_loss,
        )
    if config.model.tensor_parallel_size > 1 or config.model.context_parallel_size > 1:
        return MultiprocessExecutor(
            config.model,
            config.cache,
            config.scheduler,
            model_path=model_path,
            draft_path=find_draft_model(config, model_path),
            progress=progress,
            speculative=config.speculative,
            shared=config.shared,
            on_loss=on_loss,
        )
    return InlineExecutor(
        config.model,
        config.cache,
        config.scheduler,
        model_path=model_path,
        draft_path=find_draft_model(config, model_path),
        progress=progress,
        speculative=config.speculative,
        shared=config.shared,
    )


def build_core(
    config: EngineConfig,
    executor: Executor,
    tokenizer_path: Path,
    around_choice: AroundChoice = as_it_is,
    most_live: int | None = None,
) -> EngineCore:
    """The core of an engine around an executor that has loaded its model. `around_choice` may put
    something between the scheduler and what decides whether blocks are fetched. `most_live`: most
    requests at once; others are shed."""
    spec = executor.spec
    kv_cache = KVCacheManager(
        num_blocks=spec.num_blocks,
        block_size=spec.block_size,
        model_version=spec.model_version,
        kv_dtype=spec.kv_identity,
        enable_prefix_caching=config.cache.enable_prefix_caching,
    )
    sessions = Sessions()
    tiers, desk = build_cache_desk(config, spec, kv_cache, sessions, around_choice)
    see_end: Callable[[RequestState], None] | None = None
    if config.cache.kv_trace:
        see_end = KVTrace(Path(config.cache.kv_trace).expanduser(), spec.block_size).see_end
    scheduler = Scheduler(
        config.scheduler,
        kv_cache,
        max_model_len=spec.max_model_len,
        eos_token_ids=frozenset(spec.eos_token_ids),
        speculation=build_speculation(
            config.speculative,
            kv_cache,
            max_num_seqs=config.scheduler.max_num_seqs,
            draft_context_length=spec.draft_model.context_length if spec.draft_model else 0,
        ),
        tiers=tiers,
        sessions=sessions,
        max_in_flight=executor.max_steps_in_flight,
        most_live=most_live,
        see_end=see_end,
    )

    def make_grammar_compiler() -> GrammarCompiler:
        tokenizer = Tokenizer.load(tokenizer_path)
        return GrammarCompiler(tokenizer.json_text, spec.vocab_size, spec.eos_token_ids)

    return EngineCore(executor, scheduler, make_grammar_compiler, desk)


class _Mailbox:
    """The process's two sockets."""

    def __init__(self, arguments: EngineArguments) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._inbox = context.socket(zmq.PULL)
        self._outbox = context.socket(zmq.PUSH)
        for socket, endpoint in (
            (self._inbox, arguments.inbox),
            (self._outbox, arguments.outbox),
        ):
            socket.set_hwm(0)
            socket.connect(endpoint)

    def send(self, message: wire.FromEngine) -> None:
        self._outbox.send(wire.encode(message))

    def receive(self, wait_ms: int | None) -> list[wire.ToEngine]:
        """All messages that are there; waits up to `wait_ms` (None: for ever) for the first."""
        messages: list[wire.ToEngine] = []
        if wait_ms != 0:
            self._inbox.poll(wait_ms)
        while int(self._inbox.get(zmq.EVENTS)) & zmq.POLLIN:
            messages.append(wire.decode_to_engine(self._inbox.recv(zmq.NOBLOCK)))
        return messages

    def close(self) -> None:
        """Wait for what was sent to leave, but not for ever."""
        self._inbox.close(linger=0)
        self._outbox.close(linger=1000)
        zmq.Context.instance().term()


class _NoWatch:
    """Quality is not watched."""

    has_work = False
    num_scored = 0

    def begin(self, request: Request) -> None:
        pass

    def offer(self, answer: Document) -> None:
        pass

    def follow(self, outputs: Iterable[EngineOutput]) -> None:
        pass

    def work(self, *, is_idle: bool) -> bool:
        return False

    def stats(self) -> WatchStats | None:
        return None


class _Watch:
    """A share of the answers go to a QualityWatch."""

    def __init__(self, watch: QualityWatch, share: float) -> None:
        self._watch = watch
        self._answers = WatchedAnswers(share)
        self.begin, self.offer, self.work = self._answers.begin, watch.offer, watch.work

    @property
    def has_work(self) -> bool:
        return self._watch.has_work

    @property
    def num_scored(self) -> int:
        return self._watch.num_scored

    def follow(self, outputs: Iterable[EngineOutput]) -> None:
        for answer in self._answers.follow(outputs):
            self._watch.offer(answer)

    def stats(self) -> WatchStats | None:
        return self._watch.stats()


class _Loop:
    """Moves messages between the mailbox and the core."""

    def __init__(
        self,
        core: EngineCore,
        mailbox: _Mailbox,
        pacer: OutputPacer,
        watch: _NoWatch | _Watch,
        pulse: Pulse,
        ranks: RankNews,
    ) -> None:
        self._core = core
        self._mailbox = mailbox
        self._pacer = pacer
        self._watch = watch
        self._pulse = pulse
        self._ranks = ranks
        self._is_scoring = False

    def run(self) -> None:
        """Until a Shutdown message."""
        progressed = True
        while True:
            self._pulse.rest()
            messages = self._mailbox.receive(self._patience_ms(progressed))
            self._pulse.move()
            for message in messages:
                match message:
                    case wire.Submit(requests):
                        for request in requests:
                            self._watch.begin(request)
                            self._core.add(request)
                        self._publish_all()  # the step that reads their prompts may be long
                    case wire.Abort(request_ids):
                        self._put(self._core.abort(request_ids))
                    case wire.Score(token_ids, first_scored):
                        self._watch.offer(Document(token_ids, first_scored))
                    case wire.Ask(number, order):
                        self._mailbox.send(wire.Answer(number, self._core.ask(order)))
                        self._send(())
                    case wire.Shutdown():
                        self._pacer.put(self._core.abort_all())
                        self._publish_all()
                        return
            num_steps = self._core.num_steps
            if self._core.has_work:
                self._put(self._core.step())
            progressed = self._core.num_steps != num_steps
            if progressed and self._core.has_work:
                self._publish(self._pacer.due(time.monotonic()))
            else:
                self._publish_all()  # the next step may be a long way off
            if not self._core.has_work:
                self._ranks.restore()
            num_scored = self._watch.num_scored
            self._is_scoring = self._watch.work(is_idle=not self._core.has_work)
            has_news = not self._core.has_work and self._core.take_block_news()
            if has_news or self._watch.num_scored != num_scored or self._ranks.is_there:
                self._send(())  # which nobody would hear of before the next request

    def _patience_ms(self, progressed: bool) -> int | None:
        """How long to wait for messages: not at all while steps compute something."""
        if not self._core.has_work:
            if not self._watch.has_work:
                if self._core.awaits_block_news:
                    return _NEWS_POLL_MS
                return _RANKS_POLL_MS if self._ranks.can_come else None
            return 0 if self._is_scoring else _WATCH_POLL_MS
        return 0 if progressed or self._core.is_loading else _COMPILING_POLL_MS

    def _put(self, outputs: list[EngineOutput]) -> None:
        self._watch.follow(outputs)
        self._pacer.put(outputs)

    def _publish_all(self) -> None:
        self._publish(self._pacer.flush(time.monotonic()))

    def _publish(self, outputs: list[EngineOutput]) -> None:
        if outputs:
            self._send(tuple(outputs))

    def _send(self, outputs: tuple[EngineOutput, ...]) -> None:
        stats = msgspec.structs.replace(self._core.stats(), watch=self._watch.stats())
        self._mailbox.send(wire.Outputs(outputs, self._ranks.told_in(stats)))


def run(arguments: EngineArguments, import_time_s: float, pulse: Pulse) -> None:
    """Load the model, report Ready, and serve until told to end."""
    mailbox = _Mailbox(arguments)

    def report(phase: str, fraction: float) -> None:
        mailbox.send(wire.Loading(phase, fraction))

    config = arguments.config
    try:
        executor = load_executor(
            config, Path(arguments.model_path), report, _end_at_once(config), parent_name()
        )
        watch = _load_watch(config, executor, report)
    except EngineDead as error:  # a rank ended while it loaded: the next engine may have more luck
        logger.error("%s", error)
        mailbox.close()
        sys.exit(_exit_code_of(error))
    except NovaCronError as error:
        mailbox.send(wire.Failed(type(error).__name__, str(error)))
        mailbox.close()
        sys.exit(EXIT_FAILED)
    tokenizer_path = Path(config.model.tokenizer or arguments.model_path)
    limits = config.scheduler
    core = build_core(
        config,
        executor,
        tokenizer_path,
        most_live=limits.max_num_seqs + limits.max_queued_requests,
    )
    phases = {"import": import_time_s, **executor.spec.load_phases_s}
    spec = msgspec.structs.replace(executor.spec, load_phases_s=phases)
    gc.collect()
    gc.freeze()  # the loaded model is not garbage: keep it out of every later collection
    gc.enable()  # which __main__ had put off
    mailbox.send(wire.Ready(wire.WIRE_VERSION, spec))
    try:
        pacer, ranks = OutputPacer(config.stream_flush_interval), RankNews(executor)
        ranks.tell_losses(pulse)
        _Loop(core, mailbox, pacer, watch, pulse, ranks).run()
    except EngineDead as error:
        logger.error("%s", error)
        sys.exit(_exit_code_of(error))
    finally:
        core.shutdown()
        mailbox.close()


def _load_watch(
    config: EngineConfig, executor: Executor, progress: Callable[[str, float], None]
) -> _NoWatch | _Watch:
    """Raises ConfigError and ModelLoadError."""
    if config.watch.quality_watch == 0 or not isinstance(executor, InlineExecutor):
        return _NoWatch()
    progress("quality_watch", 0.0)
    return _Watch(executor.watch_quality(config.watch.quality_floor), config.watch.quality_watch)


def _end_at_once(config: EngineConfig) -> Callable[[str], None]:
    """A rank is gone: the client starts the engine anew, also if it is idle."""
    return lambda message: os._exit(EXIT_RANK_LOST if config.apart.hosts else _EXIT_CRASHED)


def _exit_code_of(error: EngineDead) -> int:
    return EXIT_RANK_LOST if error.has_lost_a_rank else _EXIT_CRASHED


def _end_with_client() -> None:
    """End this process when the client closes standard input, by dying if need be."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def main() -> None:
    import_time_s = time.time() - psutil.Process().create_time()
    arguments = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineArguments)
    configure_logging(arguments.config.log_level, arguments.config.log_format)
    threading.Thread(target=_end_with_client, daemon=True, name="end-with-client").start()
    run(arguments, import_time_s, Pulse(PulseMemory(arguments.pulse)))
