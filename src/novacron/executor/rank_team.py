"""RankTeam: the processes of the ranks other than 0, as rank 0 sees them.

When one of them ends, or hangs and is killed, another process takes its seat; the others keep their
weights. Then all begin anew, as a group with the next number (epoch), and the step that was cut off
is computed again from its beginning: its tensors, and all KV blocks, lie in memory that outlives a
rank, and computing a step twice leaves what computing it once leaves.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from novacron.errors import ConfigError, EngineDead, ModelLoadError
from novacron.executor.rank_messages import (
    BeginAnew,
    Begun,
    ComputeLogits,
    RankArguments,
    RunStep,
    ToRank,
)
from novacron.executor.rank_seat import RankRefused, RankSeat
from novacron.kernels.ranks import RankBond
from novacron.runner.input_batch import StepInput

_LEAST_LOADING_S: Final = 120.0
_LOADING_TIMES: Final = 5  # as long as rank 0 took

logger = logging.getLogger(__name__)


class RankTeam:
    """Starts them when made; they load while rank 0 does. Implements Lead.

    `on_loss` is called once, from another thread, with a sentence, if a rank is lost for good.
    """

    def __init__(
        self, arguments: RankArguments, link: RankBond, on_loss: Callable[[str], None]
    ) -> None:
        """`arguments` are those of rank 1, but for the socket. `link` is that of rank 0."""
        self.on_change: Callable[[], None] = lambda: None  # of `lost_ranks`, from any thread
        self._link, self._on_loss = link, on_loss
        self._patience_s = arguments.model.rank_timeout
        self._digest, self._loading_s = "", _LEAST_LOADING_S
        self._epoch = self.num_steps = 0
        self._has_told = False  # of the step that runs
        self._folder: Path | None = None
        self._seats = [
            RankSeat(msgspec.structs.replace(arguments, rank=rank), self._see_end, self._see_loss)
            for rank in range(1, arguments.num_ranks)
        ]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(seat.pid for seat in self._seats)

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Whose process does not compute with the others, or not yet."""
        return tuple(seat.rank for seat in self._seats if not seat.is_held)

    @property
    def num_replaced(self) -> int:
        return sum(seat.num_replaced for seat in self._seats)

    def begin(self, digest: str, loading_s: float) -> None:
        """Wait until all have their parts of the checkpoint of `digest`, which took rank 0
        `loading_s`. Raises what keeps a rank from it: ConfigError, ModelLoadError or EngineDead."""
        self._digest = digest
        self._loading_s = max(_LEAST_LOADING_S, _LOADING_TIMES * loading_s)
        try:
            self._begin_anew()
        except RankRefused as error:
            kind = ConfigError if error.kind == ConfigError.__name__ else ModelLoadError
            raise kind(str(error)) from None

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        self._has_told = True
        self._tell(
            RunStep(inputs.num_tokens, inputs.num_requests, inputs.num_blocks, tuple(places))
        )

    def compute_logits(self, places: Sequence[int]) -> None:
        self._tell(ComputeLogits(tuple(places)))

    def recover(self) -> None:
        """After a ConnectionError: have all seats held, and all begin anew. Raises EngineDead."""
        started_s = time.monotonic()
        reason = self._link.loss
        late = self._link.late_rank
        self._link.give_up()
        try:
            if late is not None and late > 0:
                logger.error("The step stops: %s. Its process is killed.", reason)
                self._seats[late - 1].kill()
            self._begin_anew()
        except RankRefused as error:
            raise EngineDead(f"A rank cannot be replaced: {error}") from None
        logger.warning(
            "All ranks compute again after %.1f s, as group %d.",
            time.monotonic() - started_s, self._epoch,
        )  # fmt: skip

    def see_step(self) -> None:
        """A step has been computed, by all if they were told of it."""
        if not self._has_told:
            return
        self._has_told = False
        self.num_steps += 1
        for seat in self._seats:
            seat.see_step()
        self._forget_folder()

    def close(self) -> None:
        """End them. Harmless when called again."""
        for seat in self._seats:
            seat.close()
        self._forget_folder()

    def _begin_anew(self) -> None:
        while True:
            for seat in self._seats:
                seat.wait_until_ready(self._digest, self._loading_s)
            self._epoch += 1
            self._forget_folder()
            self._folder = Path(tempfile.mkdtemp(prefix="novacron-ranks-"))
            meeting_point = self._folder / "meeting-point"
            message = BeginAnew(self._epoch, str(meeting_point))
            if all(self._has_begun(seat, message) for seat in self._seats):
                break
        self._link.begin_anew(meeting_point)
        self._link.reset()
        self.on_change()

    def _has_begun(self, seat: RankSeat, message: BeginAnew) -> bool:
        """False: another process holds the seat now. Raises EngineDead."""
        try:
            seat.send(message)
            while seat.receive(self._patience_s) != Begun(message.epoch):
                pass  # of a group that did not come about
        except TimeoutError:
            logger.error("Rank %d does not answer. Its process is killed.", seat.rank)
            seat.kill()
            return False
        except (ConnectionError, EOFError):
            seat.kill()
            return False
        return True

    def _tell(self, message: ToRank) -> None:
        """Raises ConnectionError."""
        for seat in self._seats:
            seat.send(message)

    def _see_end(self) -> None:
        self._link.give_up()
        self.on_change()

    def _see_loss(self, message: str) -> None:
        self._link.give_up()
        self._on_loss(message)

    def _forget_folder(self) -> None:
        """Once all ranks have exchanged something: so nothing stays behind."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
