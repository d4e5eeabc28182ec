"""Recorded computations: what Python says once, replayed without it.

A kernel table that can record has the operations of a computation noted down while Python runs it,
on buffers of the largest size that it will ever have; a replay computes all of them in one call,
for any smaller size. On a GPU that would be a CUDA graph, on a CPU it is native/program.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from torch import Tensor


class NotRecordable(Exception):
    """Why a computation cannot be recorded, as half a sentence."""


class Recorded(Protocol):
    """A computation that has been recorded."""

    @property
    def result(self) -> Tensor:
        """Where each run leaves its result, in the first rows."""
        ...

    def run(self, num_rows: int, num_requests: int = 0) -> None:
        """Compute it for the first `num_rows` rows of its inputs, and `num_requests` requests."""
        ...


class Record(Protocol):
    """Records what `compute` does with tensors of `max_rows` rows, which it must not look into;
    where it attends, for a step of `max_requests` requests. Computes nothing. What `compute` reads
    must stay where it is. Raises NotRecordable."""

    def __call__(
        self, compute: Callable[[], Tensor], *, max_rows: int, max_requests: int = 0
    ) -> Recorded: ...


def refuse_to_record(
    compute: Callable[[], Tensor], *, max_rows: int, max_requests: int = 0
) -> NoReturn:
    """The `record` of tables that cannot."""
    raise NotRecordable("PyTorch computes")
