"""Hidden states on their way from a stage of a pipeline to the next one, on one host.

They lie in memory that ranks share, a place for each step that may be under way. A byte in a pipe
says that a step's are there: who waits for it sleeps, and a process that ends closes its pipes, so
that whoever waits for it learns it at once. Nobody has to say that a place is free again: who plans
steps begins none before the step that had its place has come to its end.

Shapes: K places, T tokens of the largest step, D hidden size.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from torch import Tensor

from novacron.parallel.traffic import RankTraffic

_MOST_COUNTED_S: Final = 1.5  # of a wait: longer, and this process was stopped itself
_THERE: Final = b"."


class HandoverLost(Exception):
    """The other end is gone, or hangs: why, as half a sentence."""


class Exit(Protocol):
    """Where a stage's steps leave it."""

    def hand_over(self, place: int, x_TD: Tensor) -> None:
        """Raises HandoverLost if a receiver has ended."""
        ...


class Entry(Protocol):
    """Where a stage's steps come from."""

    ring_KTD: Tensor

    def take(self, place: int, num_tokens: int) -> Tensor:
        """The next step's rows, which lie in this place of the ring until it is given to another
        step. Raises HandoverLost if the sender has ended."""
        ...


class Sender:
    """Implements Exit. Writes into `ring_KTD`, and says so in each of the pipes, which whoever laid
    them closes."""

    def __init__(
        self, ring_KTD: Tensor, pipes: Sequence[int] = (), traffic: RankTraffic | None = None
    ) -> None:
        self.ring_KTD = ring_KTD
        self._traffic = traffic or RankTraffic()
        self.use(pipes)

    def use(self, pipes: Sequence[int]) -> None:
        """These, from now on."""
        self._pipes = tuple(pipes)

    def hand_over(self, place: int, x_TD: Tensor) -> None:
        self.ring_KTD[place, : x_TD.shape[0]].copy_(x_TD)
        self._traffic.see_sent(x_TD.nbytes)
        try:
            for pipe in self._pipes:
                os.write(pipe, _THERE)
        except OSError:
            raise HandoverLost("the next stage has ended") from None


class Receiver:
    """Implements Entry. Reads `ring_KTD` when the pipe says so. As long as it waits, it tells
    `see_delay` now and then how many seconds have passed since it was last told: that may raise."""

    def __init__(
        self,
        ring_KTD: Tensor,
        pipe: int | None = None,
        see_delay: Callable[[float], None] = lambda seconds: None,
        *,
        told_every_s: float = 1.0,
        traffic: RankTraffic | None = None,
    ) -> None:
        self.ring_KTD = ring_KTD
        self._traffic = traffic or RankTraffic()
        self._see_delay, self._told_every_s = see_delay, told_every_s
        self._pipe = -1
        if pipe is not None:
            self.use(pipe)

    def use(self, pipe: int) -> None:
        """This one, from now on. To be called before a step is taken."""
        self._pipe = pipe
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)

    def take(self, place: int, num_tokens: int) -> Tensor:
        began_ns, before_s = time.monotonic_ns(), time.monotonic()
        while not self._poll.poll(self._told_every_s * 1000):
            now_s = time.monotonic()
            self._see_delay(min(now_s - before_s, _MOST_COUNTED_S))
            before_s = now_s
        self._traffic.see_wait(time.monotonic_ns() - began_ns)
        if os.read(self._pipe, len(_THERE)) != _THERE:
            raise HandoverLost("the stage before has ended")
        return self.ring_KTD[place, :num_tokens]
