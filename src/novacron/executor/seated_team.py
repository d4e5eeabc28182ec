"""SeatedTeam: what teams of ranks on one host have in common, whatever they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from novacron.executor.rank_messages import RankArguments
from novacron.executor.rank_seats import Opening, RankSeats
from novacron.kernels.ranks import RankBond


class SeatedTeam(ABC):
    """Starts the other ranks when made, as processes that run `module`; they load while rank 0
    does. `link` is rank 0's. `on_loss` is called once, from another thread, with a sentence, if a
    rank is lost for good."""

    def __init__(
        self,
        arguments: RankArguments,
        module: str,
        link: RankBond,
        on_loss: Callable[[str], None],
    ) -> None:
        """`arguments` are those of rank 1, but for the socket."""
        self.on_change: Callable[[], None] = lambda: None  # of `lost_ranks`, from any thread
        self._link, self._on_loss = link, on_loss
        self._seats = RankSeats(arguments, module, self._see_end, self._see_loss)

    @property
    def pids(self) -> tuple[int, ...]:
        return self._seats.pids

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Whose process does not compute with the others, or not yet."""
        return self._seats.lost_ranks

    @property
    def num_replaced(self) -> int:
        return self._seats.num_replaced

    def begin(self, digest: str, loading_s: float) -> None:
        """Wait until all have their parts of the checkpoint of `digest`, which took rank 0
        `loading_s`. Raises what keeps a rank from it: ConfigError, ModelLoadError or EngineDead."""
        self._meet(self._seats.begin(digest, loading_s, self._openings))

    @abstractmethod
    def _openings(self, epoch: int, meeting_point: Path) -> list[Opening]:
        """What each of them is told of the group that begins."""

    @abstractmethod
    def _meet(self, meeting_point: Path) -> None:
        """Have all compute together."""

    def _see_end(self) -> None:
        self._link.give_up()
        self.on_change()

    def _see_loss(self, message: str) -> None:
        self._link.give_up()
        self._on_loss(message)
