"""Everything that makes a server on this machine: engine process, gateway, HTTP listener.

`serve` runs it in the main thread with signals; `chat --model` and its kin run it in a background
thread (background_server.py). Importing this module imports the web framework, so it is imported
after the engine process has been started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import uvicorn

from novacron.accounts.accounts import Accounts
from novacron.cli.certificate import Certificate
from novacron.cli.coordination import coordinate
from novacron.cli.engine_start import ServedClient
from novacron.cli.guardian_clients import guarding_maker
from novacron.cli.http_protocol import BoundedHttpProtocol, HttpLimits
from novacron.cli.listener import url_of
from novacron.cli.response_cache import open_response_cache
from novacron.config.load import Settings
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineState
from novacron.errors import EngineDead, NovaCronError
from novacron.gateway.app import build_app
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.identity.principal import Authenticator
from novacron.gateway.privacy import NO_POLICIES, Privacy

_LAST_BYTES_S = 3  # for responses to leave after their requests have ended


class Serving:
    """One server, from a spawned engine to the last byte sent. Belongs to one event loop.

    `settings` name the model, see `spawn_engine`. Raises ConfigError for a certificate that cannot
    be used. Without `authenticator` the keys of the settings count.
    """

    def __init__(
        self,
        client: ServedClient,
        settings: Settings,
        listener: socket.socket,
        *,
        authenticator: Authenticator | None = None,
        accounts: Accounts | None = None,
        audit: OpenedAudit | None = None,
        privacy: Privacy = NO_POLICIES,
    ) -> None:
        self.client = client
        self._certificate = Certificate(settings.server) if settings.server.tls_cert else None
        self.url = url_of(listener, scheme="https" if self._certificate else "http")
        self._listener = listener
        self._dead = asyncio.Event()
        client.on_state_change(self._note_death)
        names = settings.engine.model.served_model_name
        app = build_app(
            client,
            settings.server,
            model_names=names,
            worker_pids=self._worker_pids,
            accounts=accounts,
            make_guarding=guarding_maker(settings.guard),
            response_cache=open_response_cache(
                settings.server, settings.engine.cache.encryption_key
            ),
            authenticator=authenticator,
            audit=audit,
            privacy=privacy,
            coordination=coordinate(accounts, settings, self.url),
        )
        context = self._certificate.context if self._certificate else None
        self._uvicorn = _Uvicorn(_uvicorn_config(app, settings.server, context))
        self._watching: asyncio.Task[None] | None = None
        self._http: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen at once, while the model still loads. Raises ModelLoadError."""
        self._http = asyncio.create_task(self._uvicorn.serve(sockets=[self._listener]))
        if self._certificate is not None:
            self._watching = asyncio.create_task(self._certificate.watch())
        await self.client.start()
        await self._while_listening(self._uvicorn.listening)

    async def failure(self) -> NovaCronError:
        """Return, once the engine is dead for good, why."""
        await self._while_listening(self._dead)
        try:
            await self.client.wait_ready()
        except NovaCronError as error:
            return error
        return EngineDead("The engine has ended.")

    async def _while_listening(self, event: asyncio.Event) -> None:
        """Wait for `event`; raise if the listener, by a bug of ours, ends before it."""
        assert self._http is not None
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({waiting, self._http}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._http
            raise RuntimeError("the HTTP listener ended by itself")

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work and finish the old. True if all of it finished, in time."""
        finished = await self.client.drain(timeout_s)
        return finished and not self._dead.is_set()

    async def stop(self, *, at_once: bool = False) -> None:
        """End the engine, then the listener. Streams still open end with an error event."""
        if at_once:
            self._kill_engine()
        if self._watching is not None:
            self._watching.cancel()
        await self.client.close()
        self._uvicorn.should_exit = True
        self._uvicorn.force_exit = at_once
        if self._http is not None:
            await self._http

    def _kill_engine(self) -> None:
        """Each may be in the middle of a long step, and nobody wants its outcome any more."""
        for pid in self._engine_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _engine_pids(self) -> tuple[int, ...]:
        pids = (replica.engine_pid for replica in self.client.replicas)
        return tuple(pid for pid in pids if pid is not None)

    def _worker_pids(self) -> tuple[int, ...]:
        """Those of engines, and of the ranks of those that have several."""
        ranks = (pid for replica in self.client.replicas for pid in replica.rank_pids)
        return (*self._engine_pids(), *ranks)

    def _note_death(self, state: EngineState) -> None:
        if state is EngineState.DEAD:
            self._dead.set()


class _Uvicorn(uvicorn.Server):
    """Without uvicorn's own handling of signals: draining is ours, and comes first."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn leaves this out: the application would end by a traceback
            await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_config(
    app: Callable[..., Awaitable[None]], config: ServerConfig, tls: ssl.SSLContext | None
) -> uvicorn.Config:
    limits = HttpLimits(
        max_connections=config.max_connections, receive_timeout_s=config.receive_timeout
    )
    return uvicorn.Config(
        app,
        http=partial(BoundedHttpProtocol, limits=limits),  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=config.max_body_bytes,
        ws_ping_interval=config.keep_alive_interval,
        ws_ping_timeout=config.keep_alive_timeout,
        lifespan="on",  # the gateway samples its metrics meanwhile
        log_config=None,
        access_log=False,  # the gateway has its own
        server_header=False,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
        timeout_keep_alive=config.keep_alive_timeout,  # type: ignore[arg-type] # floats do
        timeout_graceful_shutdown=_LAST_BYTES_S,
    )
