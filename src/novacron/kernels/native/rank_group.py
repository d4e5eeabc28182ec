"""RankGroup: this process among those of the host that compute a model together."""

from __future__ import annotations

from ctypes import byref, c_int32, c_void_p
from typing import Final

from torch import Tensor

from novacron.kernels.native.library import NativeContext

PATIENCE_S: Final = 30.0  # how long a rank may be late; ranks do the same amount of work

_REASONS: Final = {
    1: "rank {rank} has ended",
    2: "rank {rank} is not at the same place of the step after {patience_s:.0f} s",
    3: "another rank has given up",
}


class RankGroup:
    """Rank `rank` of `size`, which meet in `memory`: shared, on CPU, of `group_bytes`, and zero
    before the first of them is made. One that has lost a rank stays lost."""

    def __init__(
        self,
        context: NativeContext,
        memory: Tensor,
        rank: int,
        size: int,
        *,
        patience_s: float = PATIENCE_S,
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
