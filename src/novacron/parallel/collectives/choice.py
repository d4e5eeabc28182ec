"""Which algorithm adds up a tensor, by its size and by what was measured when the ranks met.

All ranks have to choose alike. So times are measured by all, and the longest of any rank counts:
that is gathered, hence the same everywhere, and so is the choice.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from novacron.parallel.collectives.algorithms import (
    AllReduce,
    all_gather,
    butterfly_all_reduce,
    gathered_all_reduce,
    ring_all_reduce,
    scattered_all_reduce,
    tree_all_reduce,
)
from novacron.parallel.collectives.point_to_point import PointToPoint

ALGORITHMS: Final[Mapping[str, AllReduce]] = {
    "gathered": gathered_all_reduce,
    "scattered": scattered_all_reduce,
    "butterfly": butterfly_all_reduce,
    "tree": tree_all_reduce,
    "ring": ring_all_reduce,
}
MEASURED_BYTES: Final = (2**12, 2**16, 2**20)
_TRIES: Final = 3


def in_order(size: int) -> tuple[str, ...]:
    """The algorithms that add up so many ranks in the order of the kernels, so that bits do not
    depend on how many there are."""
    is_power_of_two = size & (size - 1) == 0
    always = ("gathered", "scattered", "tree")
    return (*always, "butterfly") if is_power_of_two else always


class HybridAllReduce:
    """Implements AllReduce. `times_s`: for each algorithm that may be chosen, of each of the sizes
    `measured_bytes`."""

    def __init__(
        self,
        times_s: Mapping[str, Sequence[float]],
        measured_bytes: Sequence[int] = MEASURED_BYTES,
    ) -> None:
        best = [
            min(times_s, key=lambda name: (times_s[name][place], name))
            for place in range(len(measured_bytes))
        ]
        self.chosen = dict(zip(measured_bytes, best, strict=True))
        self._limits = [  # between two sizes that were measured, the nearer one counts
            (one * other) ** 0.5 for one, other in pairwise(measured_bytes)
        ]
        self._best = [ALGORITHMS[name] for name in best]

    def __call__(self, ranks: PointToPoint, x_N: Tensor) -> None:
        self._best[bisect_left(self._limits, x_N.nbytes)](ranks, x_N)


def measure(
    ranks: PointToPoint,
    names: Sequence[str],
    measured_bytes: Sequence[int] = MEASURED_BYTES,
    clock_s: Callable[[], float] = time.perf_counter,
) -> HybridAllReduce:
    """What is best among these algorithms for these ranks; all of them call it at once."""
    own = torch.tensor(
        [
            min(_time_s(ranks, ALGORITHMS[name], num_bytes, clock_s) for _ in range(_TRIES))
            for name in names
            for num_bytes in measured_bytes
        ],
        dtype=torch.float64,
    )
    longest = all_gather(ranks, own).amax(0).view(len(names), -1)
    return HybridAllReduce(
        {name: longest[place].tolist() for place, name in enumerate(names)}, measured_bytes
    )


def _time_s(
    ranks: PointToPoint, algorithm: AllReduce, num_bytes: int, clock_s: Callable[[], float]
) -> float:
    x_N = torch.zeros(num_bytes // 4)
    gathered_all_reduce(ranks, torch.zeros(1))  # so that all begin at the same time
    started_s = clock_s()
    algorithm(ranks, x_N)
    return clock_s() - started_s
