"""Ranks in threads of this process, whose messages are queues: PointToPoint without a network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from torch import Tensor

PATIENCE_S: Final = 60.0

Result = TypeVar("Result")
Mail = dict[tuple[int, int], "queue.SimpleQueue[Tensor]"]


@dataclass
class MailboxRanks:
    """Implements PointToPoint."""

    rank: int
    size: int
    mail: Mail = field(repr=False)
    num_sent: int = 0

    def send(self, to: int, x: Tensor) -> None:
        self.num_sent += 1
        self.mail[self.rank, to].put(x.clone())

    def receive(self, source: int, out: Tensor) -> None:
        x = self.mail[source, self.rank].get(timeout=PATIENCE_S)
        assert (x.shape, x.dtype) == (out.shape, out.dtype), "another tensor was sent"
        out.copy_(x)


def all_ranks(size: int) -> list[MailboxRanks]:
    mail: Mail = {(source, to): queue.SimpleQueue() for source in range(size) for to in range(size)}
    return [MailboxRanks(rank, size, mail) for rank in range(size)]


def on_all_ranks(size: int, work: Callable[[MailboxRanks], Result]) -> list[Result]:
    """What `work` gives on each of them, all at once. Raises what it raises. Nothing that was sent
    may be left over."""
    ranks = all_ranks(size)
    found: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(rank: MailboxRanks) -> None:
        try:
            found[rank.rank] = work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert all(box.empty() for box in ranks[0].mail.values()), "a message was not taken"
    return [found[rank] for rank in range(size)]
