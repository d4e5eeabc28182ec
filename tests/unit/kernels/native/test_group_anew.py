"""A group that has lost a rank, and becomes whole again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from novacron.kernels.native.library import GroupLost, MeetCall, NativeContext, NativeUnavailable
from novacron.kernels.native.rank_group import RankGroup, group_bytes
from novacron.kernels.pages import zero_pages

try:
    CONTEXTS = [NativeContext(1) for _ in range(3)]
except NativeUnavailable:
    pytest.skip("no native kernels", allow_module_level=True)

SIZE = len(CONTEXTS)


class Ranks:
    """Threads that meet, but for those whose groups are None."""

    def __init__(self) -> None:
        self.memory = zero_pages((group_bytes(CONTEXTS[0], SIZE),), torch.uint8)
        self.groups = [self.join(rank) for rank in range(SIZE)]

    def join(self, rank: int) -> RankGroup:
        return RankGroup(CONTEXTS[rank], self.memory, rank, SIZE, patience_s=60.0)

    def meet(self, times: int, *, absent: int | None = None) -> list[bool]:
        """Whether each rank met the others so often. One that is absent gives up instead."""

        def work(rank: int) -> bool:
            if rank == absent:
                self.groups[rank].give_up()
                return False
            row = torch.zeros(1)
            call = MeetCall(
                group=self.groups[rank].pointer, source=row.data_ptr(), rows=1, row_bytes=4
            )
            try:
                for _ in range(times):
                    CONTEXTS[rank].stream.submit(call)
            except GroupLost:
                return False
            return True

        with ThreadPoolExecutor(SIZE) as threads:
            return list(threads.map(work, range(SIZE)))


def test_all_meet_again_once_all_have_begun_anew_with_a_new_process_among_them() -> None:
    ranks = Ranks()
    assert ranks.meet(50) == [True] * SIZE
    assert ranks.meet(7, absent=1) == [False] * SIZE
    assert all(ranks.groups[rank].loss for rank in (0, 2))
    ranks.groups[1] = ranks.join(1)  # knows of no meeting yet
    for group in ranks.groups:
        group.begin_anew()
    assert ranks.meet(1) == [False] * SIZE, "not before the group is whole"
    for group in ranks.groups:
        group.begin_anew()
    ranks.groups[0].reset()
    assert ranks.meet(200) == [True] * SIZE
    assert [group.loss for group in ranks.groups] == [None] * SIZE


def test_nobody_is_late_where_a_rank_has_given_up() -> None:
    ranks = Ranks()
    ranks.meet(3, absent=2)
    assert [group.late_rank for group in ranks.groups] == [None] * SIZE
