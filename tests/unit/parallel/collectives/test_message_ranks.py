"""The same sums over messages, with what networks do to them."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from novacron.parallel.collectives.message_ranks import MessageRanks, Send
from novacron.parallel.messages.links import LinkLost, Received
from novacron.parallel.messages.message_order import OutgoingLane
from novacron.parallel.messages.tensor_message import Bytes, TensorHeader, open_message


class Post:
    """What one rank sends another."""

    def __init__(self) -> None:
        self.waiting: deque[Received] = deque()

    def way_from(self, source: int, to: int) -> Send:
        lane = OutgoingLane(1, source, to)

        def send(header: TensorHeader, payload: Bytes) -> None:
            head = lane.seal(header, payload, 0)
            self.waiting.append(Received(open_message(head, payload), payload))

        return send

    def receive(self, timeout_s: float) -> Received | None:
        return self.waiting.popleft() if self.waiting else None


def nothing(timeout_s: float) -> Received | None:
    return None


def two_senders() -> tuple[MessageRanks, list[MessageRanks]]:
    """Rank 0, and ranks 1 and 2, which can send to it."""
    posts = {rank: Post() for rank in (1, 2)}
    receiver = MessageRanks(
        0,
        {rank: post.way_from(0, rank) for rank, post in posts.items()},
        {rank: post.receive for rank, post in posts.items()},
        patience_s=0.5,
    )
    senders = [
        MessageRanks(rank, {0: post.way_from(rank, 0)}, {0: nothing}, patience_s=0.5)
        for rank, post in posts.items()
    ]
    return receiver, senders


def test_who_comes_early_waits_for_his_turn() -> None:
    receiver, (one, two) = two_senders()
    two.send(0, torch.tensor([2.0]))
    one.send(0, torch.tensor([1.0]))
    two.send(0, torch.tensor([3.0]))
    out = torch.zeros(1)
    found = []
    for source in (1, 2, 2):
        receiver.receive(source, out)
        found.append(out.item())
    assert found == [1, 2, 3]


def test_another_tensor_than_was_due_ends_the_group() -> None:
    receiver, (one, _) = two_senders()
    one.send(0, torch.ones(2))
    with pytest.raises(ConnectionError, match="what rank 1 sent is of no use"):
        receiver.receive(1, torch.zeros(3))


def test_a_rank_that_says_nothing_is_not_waited_for_for_ever() -> None:
    receiver, _ = two_senders()
    with pytest.raises(ConnectionError, match="rank 1 has sent nothing"):
        receiver.receive(1, torch.zeros(1))


def test_a_lost_link_is_told() -> None:
    def lost(*_: object) -> None:
        raise LinkLost("it is gone")

    ranks = MessageRanks(0, {1: lost}, {1: lost}, patience_s=0.5)  # type: ignore[dict-item]
    with pytest.raises(ConnectionError, match="rank 1 cannot be reached: it is gone"):
        ranks.send(1, torch.ones(1))
    with pytest.raises(ConnectionError, match="it is gone"):
        ranks.receive(1, torch.ones(1))
