"""EngineHandle: what a ProcessClient holds of one engine process, from its start to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Protocol

from novacron.engine.heart_monitor import VitalSigns
from novacron.records import wire
from novacron.records.parallel_stats import LinkStats

EXIT_RANK_LOST: Final = 4  # of an engine that could not go on without a rank on another host


class EngineHandle(Protocol):
    """Making one starts the engine process, and may be done before there is an event loop."""

    @property
    def local_pid(self) -> int | None:
        """None if it runs on another host."""
        ...

    @property
    def link_stats(self) -> LinkStats | None:
        """None where there is no link."""
        ...

    @property
    def closed(self) -> bool: ...

    def send(self, message: wire.ToEngine) -> bool:
        """False if nobody listens: the engine is starting, or gone. Never blocks."""
        ...

    def vital_signs(self, rank_pids: tuple[int, ...]) -> VitalSigns:
        """Of the engine process, and of its further ranks."""
        ...

    def messages(self) -> AsyncIterator[wire.FromEngine]:
        """What the engine sends, until `close`."""
        ...

    async def wait(self) -> int | None:
        """The exit code, once the process has ended; None if it cannot be reached any more, and may
        live or not."""
        ...

    async def end(self, patience_s: float) -> None:
        """Ask the process to end; insist after `patience_s`. Closes it."""
        ...

    def kill(self) -> None:
        """Harmless if the process has ended."""
        ...

    def close(self) -> None:
        """Let go of it; a process that still runs takes that as its end."""
        ...
