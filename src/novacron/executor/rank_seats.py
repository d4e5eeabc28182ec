"""RankSeats: the seats of all ranks but rank 0's, and the group that their holders are.

When one of them ends, or hangs and is killed, another process takes its seat; the others keep their
weights. Then all begin anew, as a group with the next number (epoch). Nothing here knows what ranks
compute, or what they share.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from novacron.errors import ConfigError, EngineDead, ModelLoadError
from novacron.executor.rank_messages import Begun, RankArguments
from novacron.executor.rank_seat import RankRefused, RankSeat

_LEAST_LOADING_S: Final = 120.0
_LOADING_TIMES: Final = 5  # as long as rank 0 took

logger = logging.getLogger(__name__)


class Opening(NamedTuple):
    """What a rank is told first in a group, and the descriptors that go with it."""

    message: msgspec.Struct
    descriptors: Sequence[int] = ()


Open = Callable[[int, Path], Sequence[Opening]]  # of an epoch, and a file that is not there yet


class RankSeats:
    """Their processes start when it is made, each of them `module`, and load while rank 0 does.

    `on_end` is called from another thread when one has ended, and `on_loss` with a sentence if no
    other will take its seat.
    """

    def __init__(
        self,
        arguments: RankArguments,
        module: str,
        on_end: Callable[[], None],
        on_loss: Callable[[str], None],
    ) -> None:
        """`arguments` are those of rank 1, but for the socket."""
        self.epoch = 0
        self._patience_s = arguments.model.rank_timeout
        self._digest, self._loading_s = "", _LEAST_LOADING_S
        self._folder: Path | None = None
        self._seats = [
            RankSeat(msgspec.structs.replace(arguments, rank=rank), module, on_end, on_loss)
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

    def begin(self, digest: str, loading_s: float, open_group: Open) -> Path:
        """`begin_anew` for the first time: all have parts of the checkpoint of `digest`, which took
        rank 0 `loading_s`. Raises what keeps a rank from it: ConfigError, ModelLoadError or
        EngineDead."""
        self._digest = digest
        self._loading_s = max(_LEAST_LOADING_S, _LOADING_TIMES * loading_s)
        try:
            return self._begin(open_group)
        except RankRefused as error:
            kind = ConfigError if error.kind == ConfigError.__name__ else ModelLoadError
            raise kind(str(error)) from None

    def begin_anew(self, open_group: Open) -> Path:
        """Wait until all seats are held, and all who hold them have begun the next group, of which
        `open_group` tells each rank. As often as that takes. Returns the file at which the group
        may meet. Raises EngineDead."""
        try:
            return self._begin(open_group)
        except RankRefused as error:
            raise EngineDead(f"A rank cannot be replaced: {error}") from None

    def send(self, rank: int, message: msgspec.Struct) -> None:
        """Raises ConnectionError."""
        self._seats[rank - 1].send(message)

    def has_begun(self, rank: int, opening: Opening) -> bool:
        """Have the rank do something that the group begins with. False: another process holds its
        seat now, so that all begin anew. Raises EngineDead."""
        seat = self._seats[rank - 1]
        try:
            seat.send(*opening)
            while seat.receive(self._patience_s) != Begun(self.epoch):
                pass  # of a group that did not come about
        except TimeoutError:
            logger.error("Rank %d does not answer. Its process is killed.", rank)
            seat.kill()
            return False
        except (ConnectionError, EOFError):
            seat.kill()
            return False
        return True

    def kill(self, rank: int) -> None:
        """Raises EngineDead."""
        self._seats[rank - 1].kill()

    def see_step(self) -> None:
        """All have computed one together."""
        for seat in self._seats:
            seat.see_step()
        self._forget_folder()

    def close(self) -> None:
        """End them. Harmless when called again."""
        for seat in self._seats:
            seat.close()
        self._forget_folder()

    def _begin(self, open_group: Open) -> Path:
        while True:
            for seat in self._seats:
                seat.wait_until_ready(self._digest, self._loading_s)
            self.epoch += 1
            self._forget_folder()
            self._folder = Path(tempfile.mkdtemp(prefix="novacron-ranks-"))
            meeting_point = self._folder / "meeting-point"
            openings = open_group(self.epoch, meeting_point)
            if all(self.has_begun(rank, one) for rank, one in enumerate(openings, 1)):
                return meeting_point

    def _forget_folder(self) -> None:
        """Once all ranks have exchanged something: so nothing stays behind."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
