"""NativeRowLink: ranks of a host that each compute some rows of a step, with all weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from novacron.kernels.native.library import MeetCall, NativeContext
from novacron.kernels.native.program import NativeProgram, record
from novacron.kernels.native.rank_group import RankGroup


class NativeRowLink:
    """Implements RowLink. `num_threads` compute what this rank records here."""

    def __init__(self, context: NativeContext, group: RankGroup, num_threads: int) -> None:
        self._context, self._group = context, group
        self._runs_on = context
        if num_threads != context.num_threads:
            self._runs_on = NativeContext(num_threads, context.level)
        self.give_up, self.reset, self.met = group.give_up, group.reset, group.met

    @property
    def loss(self) -> str | None:
        return self._group.loss

    @property
    def late_rank(self) -> int | None:
        return self._group.late_rank

    def begin_anew(self, meeting_point: Path) -> None:
        self._group.begin_anew()

    def meet(self, num_tokens: int) -> None:
        self._context.stream.submit(MeetCall(group=self._group.pointer, rows=num_tokens))

    def record(
        self, compute: Callable[[], Tensor], *, max_rows: int, max_requests: int = 0
    ) -> NativeProgram:
        return record(
            self._context,
            compute,
            max_rows=max_rows,
            max_requests=max_requests,
            runs_on=self._runs_on,
        )
