"""RankPost: what a rank on another host hears, and from whom it takes what. One group in its life.

What belongs to another group is answered with Fenced or Busy, and goes no further: a half that was
cut off and comes back late finds nobody to listen to it.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from novacron.executor.hosts.orders import (
    Attach,
    Busy,
    Fenced,
    FromRank,
    Join,
    Leave,
    ToRank,
    encode,
    to_rank,
)
from novacron.parallel.messages.links import LinkLost, Received, TensorListener
from novacron.parallel.messages.tensor_message import Bytes, Kind, TensorHeader

_LOOK_S: Final = 60.0
_LEADER: Final = 0

logger = logging.getLogger(__name__)


class GroupOver(Exception):
    """This rank has nothing to do any more: why, as half a sentence."""


class RankPost:
    def __init__(self, listener: TensorListener) -> None:
        self._listener = listener
        self._join: Join | None = None
        self._epoch = self._rank = -1
        self._leader = self._leaders_tensors = b""
        self._keys: dict[int, str] = {}  # of ranks that connect to this one
        self._addresses: dict[int, bytes] = {}  # where tensors come from, and go back to
        self._orders: deque[tuple[ToRank, TensorHeader]] = deque()
        self._forwards: deque[Received] = deque()
        self._partials: dict[int, deque[Received]] = {}  # by rank

    @property
    def epoch(self) -> int:
        return self._epoch

    def wait_for_group(self) -> Join:
        """The first that asks has this rank, once both its connections are there."""
        attached: dict[int, bytes] = {}
        while self._join is None or self._epoch not in attached:
            received = self._listener.receive(_LOOK_S)
            if received is None:
                continue
            match self._read(received):
                case Join() as join if self._join is None:
                    self._join, self._epoch = join, received.header.epoch
                    self._rank = received.header.target
                    self._leader = received.reply_to
                case Join() as join:
                    self._turn_away(join, received)
                case Attach():
                    attached[received.header.epoch] = received.reply_to
                case Leave() if received.reply_to == self._leader:
                    raise GroupOver("the group was given up while it began")
                case _:
                    self._fence(received)
        self._leaders_tensors = attached[self._epoch]
        for address in (self._leader, self._leaders_tensors):
            self._listener.end_with(address)
        return self._join

    def expect(self, keys: Mapping[int, str], *, from_leader: bool) -> None:
        """Tensors come from ranks with these public keys, by their numbers, or from the leader."""
        self._keys = dict(keys)
        for key in keys.values():
            self._listener.admit(key)
        if from_leader:
            self._addresses[_LEADER] = self._leaders_tensors

    def wait_for_neighbours(self) -> None:
        """Until all that were expected have sent something. Raises GroupOver."""
        while not self._keys.keys() <= self._addresses.keys():
            self._sort(self._listener.receive(_LOOK_S))

    def tell(self, message: FromRank) -> None:
        """The leader. Raises GroupOver."""
        self._reply(self._leader, *encode(message))

    def hand_back(self, header: TensorHeader, payload: Bytes) -> None:
        """Hidden states to the leader. Raises LinkLost."""
        self._listener.reply(self._leaders_tensors, header, payload)

    def send_to(self, rank: int, header: TensorHeader, payload: Bytes) -> None:
        """A tensor to one that was expected, and has come. Raises LinkLost."""
        self._listener.reply(self._addresses[rank], header, payload)

    def next_order(self) -> tuple[ToRank, TensorHeader]:
        """Waits for it. Raises GroupOver."""
        while not self._orders:
            self._sort(self._listener.receive(_LOOK_S))
        return self._orders.popleft()

    def order_within(self, timeout_s: float) -> tuple[ToRank, TensorHeader] | None:
        """The same; None: nothing has come by then."""
        if not self._orders:
            self._sort(self._listener.receive(timeout_s))
        return self._orders.popleft() if self._orders else None

    def next_forward(self) -> Received:
        """The same for hidden states."""
        while not self._forwards:
            self._sort(self._listener.receive(_LOOK_S))
        return self._forwards.popleft()

    def next_partial(self, source: int, timeout_s: float) -> Received | None:
        """What a rank has to add; None: nothing has come by then. Raises GroupOver."""
        waiting = self._partials.setdefault(source, deque())
        while not waiting:
            received = self._listener.receive(timeout_s)
            if received is None:
                return None
            self._sort(received)
        return waiting.popleft()

    def _sort(self, received: Received | None) -> None:
        if received is None:
            return
        if received.header.epoch != self._epoch:
            match self._read(received):
                case Join() as join:
                    self._turn_away(join, received)
                case Attach():
                    pass
                case _:
                    self._fence(received)
        elif (rank := self._rank_of(received)) is not None:
            match received.header.kind:
                case Kind.FORWARD:
                    self._forwards.append(received)
                case Kind.PARTIAL:
                    self._partials.setdefault(rank, deque()).append(received)
                case Kind.ORDER if not isinstance(self._read(received), Attach):
                    raise GroupOver(f"rank {rank} gives orders, and does not lead")
        elif received.reply_to == self._leader:
            order = self._read(received)
            if order is None or isinstance(order, Leave):
                raise GroupOver("the leader has ended it")
            self._orders.append((order, received.header))
        else:
            raise GroupOver("a connection of the group was broken and made again")

    def _rank_of(self, received: Received) -> int | None:
        """Whose tensor it is, if anybody's. The first one is who it is by its key, and by having
        lost nothing yet."""
        rank, address = received.header.source, received.reply_to
        is_expected = rank not in self._addresses and received.key == self._keys.get(rank)
        if is_expected and not received.header.sequence:
            self._addresses[rank] = address
            self._listener.end_with(address)
        return rank if self._addresses.get(rank) == address else None

    def _turn_away(self, join: Join, received: Received) -> None:
        assert self._join is not None
        if join.owner == self._join.owner:
            raise GroupOver("its server has begun anew")
        self._reply(received.reply_to, *encode(Busy()))

    def _fence(self, received: Received) -> None:
        logger.warning("a message of epoch %d is fenced off", received.header.epoch)
        with contextlib.suppress(LinkLost):  # it has gone away itself
            self._listener.reply(received.reply_to, *encode(Fenced()))

    def _reply(self, address: bytes, header: TensorHeader, payload: bytes) -> None:
        try:
            self._listener.reply(address, header, payload)
        except LinkLost as error:
            if address == self._leader:
                raise GroupOver(str(error)) from None

    def _read(self, received: Received) -> ToRank | None:
        """None: it cannot be understood, or is no order."""
        if received.header.kind is not Kind.ORDER:
            return None
        try:
            return to_rank(received.payload)
        except msgspec.MsgspecError as error:
            logger.warning("an order cannot be understood: %s", error)
            return None
