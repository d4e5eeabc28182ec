"""LinkCommunicator: ranks on different hosts that share the layers, over messages."""

from __future__ import annotations

from torch import Tensor

from novacron.parallel.collectives.algorithms import AllReduce
from novacron.parallel.collectives.point_to_point import PointToPoint
from novacron.parallel.communicator import CollectiveCommunicator


class LinkCommunicator(CollectiveCommunicator):
    """Implements Communicator. Raises ConnectionError if a rank is lost."""

    def __init__(self, ranks: PointToPoint, add_up: AllReduce) -> None:
        super().__init__(ranks.rank)
        self._ranks, self._add_up = ranks, add_up

    def all_reduce(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        self._add_up(self._ranks, x.view(-1))
        return x
