"""RankGroup: this process among those of the host that compute a model together."""

from __future__ import annotations

from ctypes import byref, c_int32, c_void_p
from typing import Final

from torch import Tensor

from novacron.kernels.native.library import NativeContext, TrafficStruct
from novacron.kernels.ranks import Met

_LATE: Final = 2
_REASONS: Final = {
    1: "rank {rank} has ended",
    _LATE: "rank {rank} is not at the same place of the step, and has hung for {patience_s:.0f} s",
    3: "another rank has given up",
}


class RankGroup:
    """Rank `rank` of `size`, which meet in `memory`: shared, on CPU, of `group_bytes`, and zero
    before the first of them is made. One that has lost a rank stays lost until all ranks, one of
    them perhaps a new process, `begin_anew`, and one of them makes it whole by `reset`."""

    def __init__(
        self,
        context: NativeContext,
        memory: Tensor,
        rank: int,
        size: int,
        *,
        patience_s: float,
    ) -> None:
        assert memory.nbytes >= group_bytes(context, size)
        self.rank, self.size = rank, size
        self._patience_s = patience_s
        self._library = context.library
        self._memory = memory
        self.pointer = c_void_p(
            context.library.novacron_join(memory.data_ptr(), rank, size, patience_s)
        )

    @property
    def loss(self) -> str | None:
        """Why the group is lost, as half a sentence; None: it is not."""
        rank = c_int32()
        reason: int = self._library.novacron_loss(self.pointer, byref(rank))
        if reason == 0:
            return None
        return _REASONS[reason].format(rank=rank.value, patience_s=self._patience_s)

    @property
    def late_rank(self) -> int | None:
        """The rank that was waited for in vain although its process has not ended."""
        rank = c_int32()
        reason: int = self._library.novacron_loss(self.pointer, byref(rank))
        return rank.value if reason == _LATE else None

    def met(self, rank: int) -> Met:
        """What any of the ranks has exchanged since the memory was made."""
        found = TrafficStruct()
        self._library.novacron_traffic(self.pointer, rank, byref(found))
        return Met(found.meetings, found.bytes, found.waited_ns)

    def begin_anew(self) -> None:
        """Forget this rank's part in the group. Meetings fail until it is whole again."""
        self._library.novacron_begin_anew(self.pointer)

    def reset(self) -> None:
        """Make the group whole: all ranks have begun anew, and none of them is in a meeting."""
        self._library.novacron_reset(self.pointer)

    def give_up(self) -> None:
        """Have the other ranks wait for nobody. From any thread."""
        self._library.novacron_give_up(self.pointer)

    def __del__(self) -> None:
        pointer = self.__dict__.pop("pointer", None)
        if pointer is not None:
            self._library.novacron_leave(pointer)


def group_bytes(context: NativeContext, size: int) -> int:
    """Memory that a group of so many ranks meets in."""
    num_bytes: int = context.library.novacron_group_bytes(size)
    return num_bytes
