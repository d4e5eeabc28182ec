"""The life of `novacron serve` once its engine process is on its way: ready, signals, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys

import uvloop

from novacron.accounts.accounts import Accounts
from novacron.cli.announcement import announce, show_loading
from novacron.cli.audit_log import open_audit
from novacron.cli.engine_start import ServedClient
from novacron.cli.http_protocol import SPARE_CONNECTIONS
from novacron.cli.identity import Identity, identity_of
from novacron.cli.listener import allow_connections
from novacron.cli.serving import Serving
from novacron.config.load import Settings
from novacron.errors import NovaCronError
from novacron.observability.logs import configure_logging

EXIT_CLEAN = 0
EXIT_FAILED = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_COLLECT_AFTER = (10_000, 10, 10)  # a call makes hundreds of objects, and few cycles

logger = logging.getLogger(__name__)


def run(
    client: ServedClient,
    settings: Settings,
    listener: socket.socket,
    accounts: Accounts | None,
) -> int:
    """Serve until told to end. The exit code."""
    configure_logging(settings.server.log_level, settings.server.log_format)
    if settings.server.log_level != "debug":
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    identity = identity_of(settings, None if accounts is None else accounts.directory)
    for warning in (
        *settings.warnings,
        *identity.warnings,
        *_more_replicas_than_cores(settings),
        *allow_connections(settings.server.max_connections + SPARE_CONNECTIONS),
    ):
        logger.warning("%s", warning)
    if identity.notice:
        _say(identity.notice)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(client, settings, listener, identity, accounts))


def _more_replicas_than_cores(settings: Settings) -> list[str]:
    model = settings.engine.model
    num_wanted = model.data_parallel_size * model.tensor_parallel_size
    num_cores = len(os.sched_getaffinity(0))
    if (
        settings.cluster.is_apart
        or model.data_parallel_size == 1
        or num_wanted <= num_cores
        or model.device == "cuda"
    ):
        return []
    return [
        f"data_parallel_size asks for {num_wanted} processes that compute, but there are "
        f"{num_cores} cores: replicas wait for each other."
    ]


async def _serve(
    client: ServedClient,
    settings: Settings,
    listener: socket.socket,
    identity: Identity,
    accounts: Accounts | None,
) -> int:
    signals = _Signals()
    try:
        serving = Serving(
            client,
            settings,
            listener,
            authenticator=identity.authenticator,
            accounts=accounts,
            audit=open_audit(settings.server, asks_who_calls=identity.authenticator is not None),
        )
    except NovaCronError:  # its guardians or specialists cannot be
        await client.close()
        raise
    try:
        await serving.start()
    except NovaCronError:
        await serving.stop(at_once=True)
        raise
    needs_key = identity.authenticator is not None
    telling = asyncio.create_task(_tell(serving, settings, needs_key=needs_key))
    failing = asyncio.create_task(serving.failure())
    asked = asyncio.create_task(signals.first.wait())
    await asyncio.wait({failing, asked}, return_when=asyncio.FIRST_COMPLETED)
    telling.cancel()
    if failing.done():
        await serving.stop()
        _say(f"Error: {failing.result()}")
        return EXIT_FAILED
    failing.cancel()
    return await _end(serving, signals, settings.server.shutdown_timeout)


async def _tell(serving: Serving, settings: Settings, *, needs_key: bool) -> None:
    with contextlib.suppress(NovaCronError):  # a failure is reported by _serve
        await show_loading(serving.client)
        gc.freeze()  # what stands by now stays: keep it out of every later collection
        gc.set_threshold(*_COLLECT_AFTER)
        announce(serving.url, serving.client, settings, needs_key=needs_key)


async def _end(serving: Serving, signals: _Signals, timeout_s: float) -> int:
    """Drain until done, out of time, or told a second time."""
    logger.info("finishing running requests; a second signal ends at once")
    draining = asyncio.create_task(serving.drain(timeout_s))
    insisted = asyncio.create_task(signals.second.wait())
    await asyncio.wait({draining, insisted}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        await serving.stop(at_once=True)
        return 128 + signals.last
    insisted.cancel()
    await serving.stop()
    if draining.result():
        return EXIT_CLEAN
    _say(
        f"Error: requests were cut off, because they did not finish within {timeout_s:g} s "
        "(--shutdown-timeout) or the engine failed."
    )
    return EXIT_FAILED


class _Signals:
    """The first and the second SIGTERM or SIGINT. Counts from when it is made."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.last = 0
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._receive, number)

    def _receive(self, number: int) -> None:
        self.last = number
        (self.second if self.first.is_set() else self.first).set()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
