"""StageTeam: the processes of the ranks of a pipeline other than 0, as rank 0 sees them."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from novacron.errors import ConfigError, EngineDead, ModelLoadError
from novacron.executor.blueprint import dims_of
from novacron.executor.rank_connection import RankConnection
from novacron.executor.rank_messages import FromRank, RankArguments, RankFailed, RankReady
from novacron.executor.rank_pulse import RankPulse
from novacron.executor.stage_ends import Pipes, lay_pipes
from novacron.executor.stage_messages import (
    ComputeStageLogits,
    RunStage,
    StageArguments,
    ToStage,
)
from novacron.runner.input_batch import StepInput

_ENDING_S: Final = 5.0

logger = logging.getLogger(__name__)


class StageTeam:
    """Starts them when made; they load while rank 0 does. Implements PipelineLead. `pipes` are
    those of rank 0.

    `on_loss` is called once, from another thread, with a sentence, if one of them ends before
    `close`.
    """

    def __init__(self, arguments: RankArguments, on_loss: Callable[[str], None]) -> None:
        """`arguments` are those of rank 1, but for the socket."""
        self._on_loss = on_loss
        self._is_closed = self._is_lost = False
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="novacron-ranks-"))
        self.meeting_point = self._folder / "meeting-point"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[RankConnection[ToStage, FromRank]] = []
        self._dims = dims_of(arguments.model)
        self.pipes, *others = lay_pipes(self._dims)
        for rank, pipes in enumerate(others, 1):
            self._start(msgspec.structs.replace(arguments, rank=rank), pipes)
        self._pulse = RankPulse(self.pids, arguments.model.rank_timeout)
        for rank in range(1, self._dims.num_ranks):
            threading.Thread(
                target=self._watch, args=(rank,), daemon=True, name=f"rank-{rank}-watch"
            ).start()

    def _start(self, arguments: RankArguments, pipes: Pipes) -> None:
        own, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "novacron.executor.stage_process"],
                stdin=subprocess.PIPE,
                pass_fds=(arguments.descriptor, theirs.fileno(), *pipes.all),
            )
            told = StageArguments(
                rank=msgspec.structs.replace(arguments, socket=theirs.fileno()),
                meeting_point=str(self.meeting_point),
                entry=pipes.entry,
                exits=tuple(pipes.exits),
            )
        pipes.close()  # who waits for the rank shall see it end
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(msgspec.json.encode(told) + b"\n")
        self._processes.append(process)
        self._connections.append(RankConnection(own, FromRank))

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes)

    def wait_until_ready(self, digest: str) -> None:
        """Raises what kept a rank from loading: ConfigError, ModelLoadError or EngineDead, also if
        one has read other files than those of `digest`."""
        for rank, connection in enumerate(self._connections, 1):
            try:
                answer = connection.receive()
            except EOFError:
                raise EngineDead(
                    f"Rank {rank} of the model ended while it loaded its part."
                ) from None
            if isinstance(answer, RankFailed):
                kind = ConfigError if answer.kind == ConfigError.__name__ else ModelLoadError
                raise kind(answer.message)
            assert isinstance(answer, RankReady)
            if answer.digest != digest:
                raise EngineDead(
                    f"Rank {rank} of the model read other files than rank 0: they have changed "
                    "since."
                )

    def forget_meeting_point(self) -> None:
        """To be called once all ranks have exchanged something: so nothing stays behind."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def run_first_stage(self, inputs: StepInput, place: int) -> None:
        self._tell(_run_stage(inputs, place), self._dims.ranks_of(0)[1:])

    def run_later_stages(self, inputs: StepInput, place: int) -> None:
        self._tell(
            _run_stage(inputs, place), range(self._dims.ranks_of(0).stop, self._dims.num_ranks)
        )

    def compute_logits(self, places: Sequence[int]) -> None:
        self._tell(ComputeStageLogits(tuple(places)), self._dims.ranks_of(0)[1:])

    def see_delay(self, seconds: float) -> None:
        """The last stage has not ended its step after so long. Raises HandoverLost if no rank
        computes anything."""
        self._pulse.see_delay(seconds)

    def close(self) -> None:
        """End them. Harmless when called again."""
        with self._lock:
            self._is_closed = True
        for connection in self._connections:
            connection.close()
        self.pipes.close()
        for process in self._processes:
            try:
                process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.forget_meeting_point()

    def _tell(self, message: ToStage, ranks: range | None = None) -> None:
        """All of them, or some."""
        for rank in range(1, self._dims.num_ranks) if ranks is None else ranks:
            try:
                self._connections[rank - 1].send(message)
            except OSError:
                raise EngineDead(f"Rank {rank} of the model has ended.") from None

    def _watch(self, rank: int) -> None:
        process = self._processes[rank - 1]
        code = process.wait()
        with self._lock:
            is_news = not self._is_closed and not self._is_lost
            self._is_lost = True
        if is_news:
            message = f"Rank {rank} of the model (process {process.pid}) ended with code {code}."
            logger.error("%s", message)
            self._on_loss(message)


def _run_stage(inputs: StepInput, place: int) -> RunStage:
    return RunStage(place, inputs.num_tokens, inputs.num_requests, inputs.num_blocks)
