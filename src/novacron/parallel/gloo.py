"""GlooCommunicator: ranks of one host whatever computes in them, through torch.distributed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from novacron.parallel.communicator import CollectiveCommunicator

_LOOPBACK = "127.0.0.1"  # the name of a host may lead elsewhere


class GlooCommunicator(CollectiveCommunicator):
    """Ranks find each other by the file `meeting_point`, which does not exist yet, when they first
    have something to exchange. Raises ConnectionError if one of them is gone or late."""

    def __init__(self, meeting_point: Path, rank: int, size: int, *, patience_s: float) -> None:
        super().__init__(rank)
        self._arguments = (meeting_point, size, timedelta(seconds=patience_s))
        self._group: dist.ProcessGroupGloo | None = None

    def begin_anew(self, meeting_point: Path) -> None:
        """Leave the group, and find one by another file."""
        self._arguments = (meeting_point, *self._arguments[1:])
        self._group = None

    def all_reduce(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        try:
            if self._group is None:
                self._group = self._connect()
            self._group.allreduce([x]).wait()  # type: ignore[attr-defined]
        except RuntimeError as error:
            raise ConnectionError(f"ranks cannot reach each other: {error}") from None
        return x

    def _connect(self) -> dist.ProcessGroupGloo:
        meeting_point, size, patience = self._arguments
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=_LOOPBACK)]
        options._timeout = patience
        store = dist.FileStore(str(meeting_point), size)  # type: ignore[attr-defined]
        return dist.ProcessGroupGloo(store, self._rank, size, options)
