"""A server inside this process, for commands that bring their own model.

The commands then speak HTTP to it as to any other server, so there is one way through the code. It
listens on a free port of the loopback address and wants a key that only this process knows.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from novacron.cli.announcement import show_loading
from novacron.cli.engine_start import spawn_engine
from novacron.cli.listener import bind
from novacron.config.load import Settings

if TYPE_CHECKING:  # imported at run time only after the engine process has been started
    from novacron.cli.serving import Serving


class Endpoint(NamedTuple):
    """Where a server is, and the key it wants."""

    url: str
    api_key: str | None


@contextmanager
def background_server(settings: Settings) -> Iterator[Endpoint]:
    """A server that is ready, until the block ends. Raises what made the engine fail to start."""
    thread = _ServerThread(settings)
    thread.start()
    try:
        yield thread.endpoint.result()
    finally:
        thread.end()


class _ServerThread(threading.Thread):
    def __init__(self, settings: Settings) -> None:
        super().__init__(name="server", daemon=True)
        self.endpoint: Future[Endpoint] = Future()
        self._key = secrets.token_urlsafe()
        server = replace(
            settings.server,
            api_key=(self._key,),
            access_log=False,
            tls_cert="",  # nobody else is on this connection
            tls_key="",
            tls_client_ca="",
        )
        self._settings = replace(settings, server=server)
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except BaseException as error:
                if self.endpoint.done():
                    raise
                self.endpoint.set_exception(error)

    def end(self) -> None:
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
        self.join()

    async def _serve(self) -> None:
        client, settings = spawn_engine(self._settings)

        from novacron.cli.serving import Serving

        serving = Serving(client, settings, bind("127.0.0.1", 0))
        try:
            await serving.start()
            await self._until_ended(serving)
        finally:
            await serving.stop()

    async def _until_ended(self, serving: Serving) -> None:
        """Told to end while it loads (Ctrl-C), it does not wait for the loading."""
        client = serving.client
        wait = show_loading(client) if sys.stderr.isatty() else client.wait_ready()
        ready = asyncio.ensure_future(wait)
        ended = asyncio.ensure_future(self._ended.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            return
        ready.result()
        self.endpoint.set_result(Endpoint(serving.url, self._key))
        await ended
