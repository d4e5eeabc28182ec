"""RankTeam: the processes of the ranks other than 0, as rank 0 sees them.

After a loss the step that was cut off is computed again from its beginning: its tensors, and all KV
blocks, lie in memory that outlives a rank, and computing a step twice leaves what computing it once
leaves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from novacron.executor.rank_messages import (
    BeginAnew,
    ComputeLogits,
    RankArguments,
    RunStep,
    ToRank,
)
from novacron.executor.rank_seats import Opening
from novacron.executor.seated_team import SeatedTeam
from novacron.kernels.ranks import RankBond
from novacron.runner.input_batch import StepInput

_MODULE: Final = "novacron.executor.rank_process"

logger = logging.getLogger(__name__)


class RankTeam(SeatedTeam):
    """Starts them when made; they load while rank 0 does. Implements Lead.

    `on_loss` is called once, from another thread, with a sentence, if a rank is lost for good.
    """

    def __init__(
        self, arguments: RankArguments, link: RankBond, on_loss: Callable[[str], None]
    ) -> None:
        """`arguments` are those of rank 1, but for the socket. `link` is that of rank 0."""
        self.num_steps = 0
        self._has_told = False  # of the step that runs
        self._others = range(1, arguments.num_ranks)
        super().__init__(arguments, _MODULE, link, on_loss)

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
        if late is not None and late > 0:
            logger.error("The step stops: %s. Its process is killed.", reason)
            self._seats.kill(late)
        self._meet(self._seats.begin_anew(self._openings))
        logger.warning(
            "All ranks compute again after %.1f s, as group %d.",
            time.monotonic() - started_s, self._seats.epoch,
        )  # fmt: skip

    def see_step(self) -> None:
        """A step has been computed, by all if they were told of it."""
        if not self._has_told:
            return
        self._has_told = False
        self.num_steps += 1
        self._seats.see_step()

    def close(self) -> None:
        """End them. Harmless when called again."""
        self._seats.close()

    def _openings(self, epoch: int, meeting_point: Path) -> list[Opening]:
        return [Opening(BeginAnew(epoch, str(meeting_point)))] * len(self._others)

    def _meet(self, meeting_point: Path) -> None:
        self._link.begin_anew(meeting_point)
        self._link.reset()
        self.on_change()

    def _tell(self, message: ToRank) -> None:
        """Raises ConnectionError."""
        for rank in self._others:
            self._seats.send(rank, message)
