"""The engine process: loads a model, and serves it until told to end.

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
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from novacron.config.engine import EngineConfig
from novacron.engine.answer_watch import AnswerWatch, NoWatch
from novacron.engine.build import build_core, load_executor
from novacron.engine.engine_arguments import EngineArguments
from novacron.engine.engine_handle import EXIT_RANK_LOST
from novacron.engine.link.linked_ranks import parent_name
from novacron.engine.mailbox import Mailbox
from novacron.engine.message_loop import MessageLoop
from novacron.engine.output_pacer import OutputPacer
from novacron.engine.pulse import Pulse, PulseMemory
from novacron.engine.rank_news import RankNews
from novacron.errors import EngineDead, NovaCronError
from novacron.executor.executor import Executor
from novacron.executor.inline import InlineExecutor
from novacron.observability.logs import configure_logging
from novacron.records import wire

EXIT_FAILED = 3
_EXIT_CRASHED = 1

logger = logging.getLogger(__name__)


def run(arguments: EngineArguments, import_time_s: float, pulse: Pulse) -> None:
    """Load the model, report Ready, and serve until told to end."""
    mailbox = Mailbox(arguments)

    def report(phase: str, fraction: float) -> None:
        mailbox.send(wire.Loading(phase, fraction))

    config = arguments.config
    try:
        executor = load_executor(
            config, Path(arguments.model_path), report, _end_at_once, parent_name()
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
        MessageLoop(core, mailbox, pacer, watch, pulse, ranks).run()
    except EngineDead as error:
        logger.error("%s", error)
        sys.exit(_exit_code_of(error))
    finally:
        core.shutdown()
        mailbox.close()


def _load_watch(
    config: EngineConfig, executor: Executor, progress: Callable[[str, float], None]
) -> NoWatch | AnswerWatch:
    """Raises ConfigError and ModelLoadError."""
    if config.watch.quality_watch == 0 or not isinstance(executor, InlineExecutor):
        return NoWatch()
    progress("quality_watch", 0.0)
    watch = executor.watch_quality(config.watch.quality_floor)
    return AnswerWatch(watch, config.watch.quality_watch)


def _end_at_once(message: str) -> None:
    """A rank is gone for good: the client starts the engine anew, also if it is idle."""
    os._exit(_EXIT_CRASHED)


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
