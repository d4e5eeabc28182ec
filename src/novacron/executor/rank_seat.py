"""RankSeat: the place of one rank, and the process that holds it, whichever that is by now."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from novacron.errors import EngineDead
from novacron.executor.rank_connection import RankConnection
from novacron.executor.rank_messages import FromRank, RankArguments, RankFailed, RankReady
from novacron.executor.rank_pulse import wants_core

_ENDING_S: Final = 5.0
_MOST_ENDS: Final = 3  # of processes one after the other that have not computed a step together

logger = logging.getLogger(__name__)


class _Holder(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: RankConnection[msgspec.Struct, FromRank]


class RankSeat:
    """Starts a process when made, and another one as soon as that has ended, until `close` or until
    too many have ended. A process has ended before its successor starts, so that nothing it does
    can meet with what that does; one that hangs is killed for it.

    `on_end` is called from another thread when a process has ended, before the next one starts, and
    `on_loss` with a sentence if there will be none. All other calls come from one thread.
    """

    def __init__(
        self,
        arguments: RankArguments,
        module: str,
        on_end: Callable[[], None],
        on_loss: Callable[[str], None],
    ) -> None:
        """`arguments` are those of the rank, but for the socket; `module` is what it runs."""
        self.rank = arguments.rank
        self.num_replaced = 0
        self._arguments, self._module = arguments, module
        self._on_end, self._on_loss = on_end, on_loss
        self._changed = threading.Condition()
        self._is_closed = False
        self._loss: str | None = None
        self._num_ends = 0  # since the last step
        self._has_ended = False  # who holds it
        self._stale: list[RankConnection[msgspec.Struct, FromRank]] = []
        self._holder = self._start()
        self._ready: _Holder | None = None
        threading.Thread(target=self._keep, daemon=True, name=f"rank-{self.rank}-seat").start()

    @property
    def pid(self) -> int:
        return self._holder.process.pid

    @property
    def is_held(self) -> bool:
        """By a process that lives, as far as is known, and is ready to compute."""
        return self._holder is self._ready and not self._has_ended

    def wait_until_ready(self, digest: str, patience_s: float) -> None:
        """Until the process that holds the seat has its part of the model. Who takes longer than
        `patience_s`, and does nothing for it, is replaced. Raises EngineDead, also if it has read
        other files than those of `digest`; and RankRefused."""
        while (holder := self._holder) is not self._ready:
            try:
                answer = _receive(holder, patience_s)
            except EOFError:
                self._replace(holder)
                continue
            except TimeoutError:
                logger.error("Rank %d does not load its part, and is replaced.", self.rank)
                self._replace(holder)
                continue
            match answer:
                case RankFailed(kind, message):
                    raise RankRefused(kind, message)
                case RankReady(found) if found != digest:
                    raise EngineDead(
                        f"Rank {self.rank} of the model read other files than rank 0: they have "
                        "changed since."
                    )
            self._ready = holder
            self._forget_predecessors(holder)

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """To the process that was ready last, with copies of `descriptors`. Raises ConnectionError
        if it is gone."""
        assert self._ready is not None
        self._ready.connection.send(message, descriptors)

    def receive(self, patience_s: float) -> FromRank:
        """From it. Raises EOFError if it is gone, and TimeoutError if it hangs."""
        assert self._ready is not None
        return _receive(self._ready, patience_s)

    def kill(self) -> None:
        """End it, whatever it does, if it has not ended yet, and wait for its successor. Raises
        EngineDead."""
        assert self._ready is not None
        self._replace(self._ready)

    def _replace(self, holder: _Holder) -> None:
        holder.process.kill()
        with self._changed:
            self._changed.wait_for(
                lambda: self._holder is not holder or self._loss is not None, _ENDING_S
            )
            if self._loss is not None:
                raise EngineDead(self._loss)

    def _forget_predecessors(self, holder: _Holder) -> None:
        with self._changed:
            stale = [one for one in self._stale if one is not holder.connection]
            self._stale = [one for one in self._stale if one is holder.connection]
        for connection in stale:
            connection.close()

    def see_step(self) -> None:
        """The process has computed one with the others."""
        if self._num_ends:
            with self._changed:
                self._num_ends = 0

    def close(self) -> None:
        """End the process. Harmless when called again."""
        with self._changed:
            self._is_closed = True
            holder = self._holder
        for connection in (*self._stale, holder.connection):
            connection.close()
        try:
            holder.process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            holder.process.kill()
            holder.process.wait()

    def _start(self) -> _Holder:
        own, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                pass_fds=(self._arguments.descriptor, theirs.fileno()),
            )
            told = msgspec.structs.replace(self._arguments, socket=theirs.fileno())
        assert process.stdin is not None
        try:
            with process.stdin:
                process.stdin.write(msgspec.json.encode(told) + b"\n")
        except BrokenPipeError:
            pass  # it has ended already, which whoever waits for it sees
        return _Holder(process, RankConnection(own, FromRank))

    def _keep(self) -> None:
        while True:
            process = self._holder.process
            code = process.wait()
            with self._changed:
                if self._is_closed:
                    return
                self._has_ended = True
                self._num_ends += 1
                message = (
                    f"Rank {self.rank} of the model (process {process.pid}) ended with code {code}"
                )
                is_lost = self._num_ends >= _MOST_ENDS
            self._on_end()
            if is_lost:
                logger.error("%s, as %d before it.", message, self._num_ends - 1)
                self._lose(f"{message}, as others before it.")
                return
            logger.error("%s. Another process takes its place.", message)
            with self._changed:
                if self._is_closed:
                    return
                self._stale.append(self._holder.connection)
                try:
                    self._holder = self._start()
                    self._has_ended = False
                except OSError as error:
                    logger.error("Rank %d cannot be started: %s.", self.rank, error)
                    is_lost = True
                self.num_replaced += 1
                self._changed.notify_all()
            if is_lost:
                self._lose(f"{message}, and no other process can be started.")
                return

    def _lose(self, message: str) -> None:
        with self._changed:
            self._loss = message
            self._changed.notify_all()
        self._on_loss(message)


def _receive(holder: _Holder, patience_s: float) -> FromRank:
    """Who computes, or waits for a core, is waited for."""
    while True:
        try:
            return holder.connection.receive(patience_s)
        except TimeoutError:
            if not wants_core(holder.process.pid):
                raise


class RankRefused(Exception):
    """A rank cannot load its part. `kind` is the class of the error in errors.py."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
