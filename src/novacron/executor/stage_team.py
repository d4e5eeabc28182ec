"""StageTeam: the processes of the ranks of a pipeline other than 0, as rank 0 sees them.

After a loss the steps that were under way are computed again from their beginning: their tensors,
and all KV blocks, lie in memory that outlives a rank. Pipes are laid anew for each group, so that
no byte of an old one is left in them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from novacron.executor.blueprint import dims_of
from novacron.executor.rank_messages import RankArguments
from novacron.executor.rank_pulse import RankPulse
from novacron.executor.rank_seats import Opening
from novacron.executor.seated_team import SeatedTeam
from novacron.executor.stage_ends import Pipes, lay_pipes
from novacron.executor.stage_messages import BeginStage, ComputeStageLogits, MakeWhole, RunStage
from novacron.kernels.ranks import RankBond
from novacron.runner.input_batch import StepInput

_MODULE: Final = "novacron.executor.stage_process"

logger = logging.getLogger(__name__)


class StageTeam(SeatedTeam):
    """Starts them when made; they load while rank 0 does. Implements PipelineLead.

    `link` is that of rank 0 to the other ranks of its stage, and `use` is given its pipes, those of
    each group. `on_loss` is called once, from another thread, with a sentence, if a rank is lost
    for good.
    """

    def __init__(
        self,
        arguments: RankArguments,
        link: RankBond,
        use: Callable[[Pipes], None],
        on_loss: Callable[[str], None],
    ) -> None:
        """`arguments` are those of rank 1, but for the socket."""
        self._use = use
        self._patience_s = arguments.model.rank_timeout
        self._dims = dims_of(arguments.model)
        self._pipes = Pipes()  # of rank 0
        self._laid: list[Pipes] = []  # of the others, until they have them
        super().__init__(arguments, _MODULE, link, on_loss)
        self._pulse = RankPulse((), self._patience_s)

    def recover(self) -> None:
        """After a ConnectionError or HandoverLost: have all seats held, and all begin anew. Raises
        EngineDead."""
        started_s = time.monotonic()
        self._link.give_up()
        self._close_pipes()  # whoever waits for a step gives it up then, one stage after the other
        self._meet(self._seats.begin_anew(self._openings))
        logger.warning(
            "All ranks compute again after %.1f s, as group %d.",
            time.monotonic() - started_s, self._seats.epoch,
        )  # fmt: skip

    def see_step(self) -> None:
        """A step has come to its end."""
        self._seats.see_step()

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
        self._seats.close()
        self._close_pipes()

    def _openings(self, epoch: int, meeting_point: Path) -> list[Opening]:
        self._close_pipes()
        self._pipes, *self._laid = lay_pipes(self._dims)
        return [
            Opening(BeginStage(epoch, str(meeting_point), len(pipes.exits)), pipes.all)
            for pipes in self._laid
        ]

    def _meet(self, meeting_point: Path) -> None:
        while not self._are_stages_whole():
            meeting_point = self._seats.begin_anew(self._openings)
        for pipes in self._laid:
            pipes.close()  # who waits for their rank shall see it end
        self._laid = []
        self._link.begin_anew(meeting_point)
        self._link.reset()
        self._use(self._pipes)
        self._pulse = RankPulse(self.pids, self._patience_s)
        self.on_change()

    def _are_stages_whole(self) -> bool:
        """Have one rank of each further stage let its ranks meet, now that all have begun."""
        if self._dims.tensor == 1:
            return True
        opening = Opening(MakeWhole(self._seats.epoch))
        stages = range(1, self._dims.pipeline)
        return all(
            self._seats.has_begun(self._dims.ranks_of(stage)[0], opening) for stage in stages
        )

    def _close_pipes(self) -> None:
        for pipes in (self._pipes, *self._laid):
            pipes.close()

    def _tell(self, message: msgspec.Struct, ranks: Iterable[int]) -> None:
        """Raises ConnectionError."""
        for rank in ranks:
            self._seats.send(rank, message)


def _run_stage(inputs: StepInput, place: int) -> RunStage:
    return RunStage(place, inputs.num_tokens, inputs.num_requests, inputs.num_blocks)
