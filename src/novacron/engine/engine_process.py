"""EngineProcess: one child process that runs an engine, and the two sockets that lead to it.

Started by ProcessClient, which decides what its messages and its end mean; or by an EngineHost,
which passes its messages on to a ProcessClient on another host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import zmq

from novacron.config.engine import EngineConfig
from novacron.engine.engine_arguments import EngineArguments
from novacron.engine.heart_monitor import VitalSigns
from novacron.engine.pulse import PulseMemory
from novacron.engine.socket_reader import SocketReader
from novacron.records import wire
from novacron.records.parallel_stats import LinkStats

# Threads of torch's OpenMP that spin at barriers slow a step down tenfold as soon as anything else
# wants their core, and something does: this process, at every token. The user's environment wins.
_THREADS_THAT_SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}


class EngineProcess:
    """A running engine. The child imports and loads while its starter does something else."""

    def __init__(
        self, config: EngineConfig, model_path: Path, *, module: str = "novacron.engine"
    ) -> None:
        """Raises OSError if the system has no room for another process."""
        self._folder = tempfile.mkdtemp(prefix="novacron-")  # mode 0700: nobody else may connect
        self._is_on_disk = True
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._outgoing = context.socket(zmq.PUSH)
        self._incoming = context.socket(zmq.PULL)
        self._reader = SocketReader(self._incoming)
        endpoints = {}
        for name, socket in (("inbox", self._outgoing), ("outbox", self._incoming)):
            socket.set_hwm(0)
            endpoints[name] = f"ipc://{self._folder}/{name}"
            socket.bind(endpoints[name])
        self._pulse = PulseMemory()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                pass_fds=(self._pulse.descriptor,),
                env=_THREADS_THAT_SLEEP | os.environ,
                start_new_session=True,  # a terminal's Ctrl-C is for the server, which then drains
            )
        except OSError:
            self._close_sockets()
            raise
        finally:
            descriptor = self._pulse.descriptor
            self._pulse.close_descriptor()
        arguments = EngineArguments(
            config=config, model_path=str(model_path), pulse=descriptor, **endpoints
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(arguments) + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def local_pid(self) -> int | None:
        return self.pid

    @property
    def link_stats(self) -> LinkStats | None:
        return None

    @property
    def closed(self) -> bool:
        return self._outgoing.closed

    def send(self, message: wire.ToEngine) -> bool:
        """False if nobody listens: the engine is starting, or gone. Never blocks."""
        return self.send_encoded(wire.encode(message))

    def send_encoded(self, message: bytes | memoryview) -> bool:
        """The same for a wire.ToEngine as it travels."""
        if self.closed:
            return False
        try:
            self._outgoing.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def vital_signs(self, rank_pids: tuple[int, ...]) -> VitalSigns:
        """Of this process, and of its further ranks."""
        pids = (self.pid, *rank_pids)
        return VitalSigns(self._pulse.read(), tuple(filter(_is_stopped, pids)))

    async def messages(self) -> AsyncIterator[wire.FromEngine]:
        """What the engine sends, until `close`."""
        async for message in self.encoded_messages():
            yield wire.decode_from_engine(message)

    async def encoded_messages(self) -> AsyncIterator[memoryview]:
        """The same as it travels."""
        async for [frame] in self._reader.messages():
            self._remove_folder_once_connected()
            yield frame.buffer

    def _remove_folder_once_connected(self) -> None:
        """Both ends hold their connections: nobody needs the addresses any more, and so nothing
        stays behind if this process is killed."""
        if self._is_on_disk and self._outgoing.poll(0, zmq.POLLOUT):
            self._remove_folder()

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._is_on_disk = False

    async def wait(self) -> int | None:
        """The exit code, once the process has ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()

        def tell(exit_code: int) -> None:
            if not ended.done():
                ended.set_result(exit_code)

        def watch() -> None:
            with contextlib.suppress(ChildProcessError):  # somebody was quicker to ask
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # ranks that were stopped cannot end themselves
            exit_code = self._process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting
                loop.call_soon_threadsafe(tell, exit_code)

        threading.Thread(target=watch, daemon=True, name="engine-watch").start()
        return await ended

    async def end(self, patience_s: float) -> None:
        """Ask the process to end; insist after `patience_s`."""
        self.send(wire.Shutdown())
        try:
            await asyncio.wait_for(self.wait(), patience_s)
        except TimeoutError:
            self.kill()
            await self.wait()
        self.close()

    def kill(self) -> None:
        """Harmless if the process has ended."""
        self._process.kill()

    def close(self) -> None:
        """Let go of the sockets; the process, if it still runs, takes that as its end."""
        self._close_sockets()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _close_sockets(self) -> None:
        self._reader.close()
        for socket in (self._outgoing, self._incoming):
            socket.close(linger=0)
        self._remove_folder()


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:  # it has ended
        return False
