"""A process that waits for a leader and is a rank of its group: of one, and then ends.

Started by RankSupervisor as `python -m novacron.engine.link.rank_process`, with its RankArguments
as one line of JSON on standard input; says on standard output where it is found. That each process
has one group in its life is the surest fence: nothing of an old one can be left in it.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.host_settings import settings_of_host
from novacron.engine.link.keys import KeyPair
from novacron.engine.link.linked_ranks import open_rank_link
from novacron.engine.link.rank_arguments import RankArguments
from novacron.engine.link.tensor_listener import RankListener
from novacron.errors import ConfigError
from novacron.executor.blueprint import dims_of
from novacron.executor.hosts.hosted_rank import serve_group
from novacron.executor.hosts.orders import Join
from novacron.executor.hosts.own_part import OwnHost
from novacron.executor.rank_pulse import RankPulse
from novacron.observability.logs import configure_logging
from novacron.parallel.handover import HandoverLost
from novacron.parallel.messages.links import OnLoss, TensorLink

EXIT_CANNOT_LISTEN: Final = 2
_EXIT_HANGS: Final = 3
_PATIENCE_S: Final = 25.0  # with a leader that is silent; a large tensor on a slow link may be
_LOOK_S: Final = 1.0

logger = logging.getLogger(__name__)


class Network:
    """How this rank is found, and finds the next one."""

    def __init__(self, arguments: RankArguments) -> None:
        """Raises ConfigError."""
        self._keys = KeyPair.of_secret(arguments.secret_key)
        self._timeout_s = _PATIENCE_S
        self.listener = RankListener(
            arguments.listen,
            self._keys,
            arguments.allowed,
            timeout_s=_PATIENCE_S,
            on_loss=end_at_once,
        )

    @property
    def address(self) -> EngineAddress:
        return self.listener.address

    def begin(self, join: Join) -> None:
        self._timeout_s = join.timeout_s
        self.listener.clock_offset_ns = join.clock_ns - time.monotonic_ns()

    def open_link(
        self, address: str, epoch: int, source: int, target: int, on_loss: OnLoss
    ) -> TensorLink:
        return open_rank_link(
            self._keys, self._timeout_s, self.listener.clock_offset_ns,
            address, epoch, source, target, on_loss,
        )  # fmt: skip


class HangWatch:
    """Ends this process if a step is being computed, but no processor time passes."""

    def __init__(self) -> None:
        self._is_computing = False

    def computing(self, begins: bool) -> None:
        self._is_computing = begins

    def begin(self, patience_s: float) -> None:
        threading.Thread(
            target=self._run, args=(patience_s,), daemon=True, name="hang-watch"
        ).start()

    def _run(self, patience_s: float) -> None:
        pulse = RankPulse((os.getpid(),), patience_s)
        while True:
            time.sleep(_LOOK_S)
            if not self._is_computing:
                pulse = RankPulse((os.getpid(),), patience_s)
                continue
            try:
                pulse.see_delay(_LOOK_S)
            except HandoverLost:
                reason = f"a step has computed nothing for {patience_s:g} s (rank_timeout)"
                end_at_once(reason, _EXIT_HANGS)


def end_at_once(reason: str, exit_code: int = 0) -> None:
    """In the middle of a step, too: what it would make, nobody would take."""
    logger.warning("the group is over: %s", reason)
    os._exit(exit_code)


def prepare(
    given: Mapping[str, object], model: ModelConfig, cache: CacheConfig
) -> tuple[ModelConfig, CacheConfig, Path]:
    """Raises ConfigError and ModelLoadError."""
    config, path = settings_of_host(EngineConfig(model=model, cache=cache), given)
    return config.model, config.cache, path


def run(arguments: RankArguments) -> None:
    """Raises ConfigError."""
    network, watch = Network(arguments), HangWatch()
    print(network.address, flush=True)
    gc.collect()

    def begin(join: Join) -> None:
        network.begin(join)
        dims = dims_of(join.model)
        others_first = 2 if dims.ranks_each > 1 else 1  # who waits for one that hangs replaces it
        watch.begin(others_first * join.model.rank_timeout)
        logger.info("host %d of %d for %s", join.rank, dims.num_hosts, join.owner)

    reason = serve_group(
        OwnHost(
            listener=network.listener,
            open_link=network.open_link,
            prepare=partial(prepare, arguments.given),
            on_loss=end_at_once,
            begin=begin,
            computing=watch.computing,
            follows_a_crash=arguments.follows_a_crash,
        )
    )
    logger.warning("the group is over: %s", reason)
    network.listener.close()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the supervisor
    arguments = msgspec.json.decode(sys.stdin.buffer.readline(), type=RankArguments)
    configure_logging(arguments.log_level, arguments.log_format)
    threading.Thread(target=_end_with_supervisor, daemon=True, name="end-with-supervisor").start()
    try:
        run(arguments)
    except ConfigError as error:
        print(f"error: {error}", flush=True)
        sys.exit(EXIT_CANNOT_LISTEN)


def _end_with_supervisor() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
