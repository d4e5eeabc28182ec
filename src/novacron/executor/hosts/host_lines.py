"""HostLines: what ranks on other hosts send the one that leads, sorted: tensors for who computes,
and words beside the steps for who asks for them. Lanes are read in whatever order they fill."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from novacron.executor.hosts.orders import Fenced, FromRank, PartFailed, from_rank
from novacron.parallel.messages.links import LinkLost, Received, TensorLink
from novacron.parallel.messages.tensor_message import Bytes, Kind, TensorHeader

_LOOK_S: Final = 0.25


class HostLines:
    """`links` are those to ranks 1 and following, which all have their part. For one thread. All
    methods raise LinkLost, also where a rank says that it is over."""

    def __init__(self, links: Sequence[TensorLink]) -> None:
        self._links = links
        self._tensors: list[deque[Received]] = [deque() for _ in links]
        self._words: deque[tuple[int, FromRank]] = deque()

    def send_first(self, header: TensorHeader, payload: Bytes) -> None:
        """Hidden states to the second stage."""
        self._links[0].send(header, payload)

    def receive_last(self) -> Received:
        """Hidden states of the last stage. Waits."""
        last = len(self._links) - 1
        while True:
            self._look()
            received = self._next_tensor(last, _LOOK_S)
            if received is not None:
                return received

    def send_ways(self) -> dict[int, Callable[[TensorHeader, Bytes], None]]:
        """To each rank, for what ranks add up."""
        return {rank: link.send for rank, link in enumerate(self._links, 1)}

    def receive_ways(self) -> dict[int, Callable[[float], Received | None]]:
        return {index + 1: partial(self._next_tensor, index) for index in range(len(self._links))}

    def words(self) -> list[tuple[int, FromRank]]:
        """What ranks, by their numbers, have said since the last call."""
        self._look()
        words = list(self._words)
        self._words.clear()
        return words

    def _look(self) -> None:
        """At all that is there, without waiting."""
        for index, link in enumerate(self._links):
            while (received := link.receive(0.0)) is not None:
                self._sort(index, received)

    def _next_tensor(self, index: int, timeout_s: float) -> Received | None:
        """The next one of a rank; None if none has come by then, or before it a word."""
        tensors = self._tensors[index]
        if not tensors:
            received = self._links[index].receive(timeout_s)
            if received is not None:
                self._sort(index, received)
        return tensors.popleft() if tensors else None

    def _sort(self, index: int, received: Received) -> None:
        if received.header.kind is not Kind.ORDER:
            self._tensors[index].append(received)
            return
        place = self._links[index].place
        try:
            word = from_rank(received.payload)
        except msgspec.MsgspecError as error:
            raise LinkLost(f"what {place} says cannot be understood: {error}") from None
        if isinstance(word, Fenced | PartFailed):
            raise LinkLost(f"the rank at {place} is not in the group any more")
        self._words.append((index + 1, word))
