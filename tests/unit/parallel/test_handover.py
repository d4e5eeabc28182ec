from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from novacron.parallel.handover import HandoverLost, Receiver, Sender

RING_KTD = torch.zeros(2, 4, 3)


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """Its ends, to read from and to write to. Tests may close one, and say so by 0."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end:
            os.close(end)


def test_steps_come_in_their_order_each_in_its_place(pipe: list[int]) -> None:
    sender, receiver = Sender(RING_KTD, [pipe[1]]), Receiver(RING_KTD, pipe[0])
    first, second = torch.rand(3, 3), torch.rand(1, 3)
    sender.hand_over(1, first)
    sender.hand_over(0, second)
    assert torch.equal(receiver.take(1, 3), first)
    assert torch.equal(receiver.take(0, 1), second)


def test_every_receiver_gets_each_step(pipe: list[int]) -> None:
    other = os.pipe()
    sender = Sender(RING_KTD, [pipe[1], other[1]])
    sender.hand_over(0, torch.ones(4, 3))
    for end in (pipe[0], other[0]):
        assert bool((Receiver(RING_KTD, end).take(0, 4) == 1).all())
    for end in other:
        os.close(end)


def test_who_waits_for_a_sender_that_ends_learns_it(pipe: list[int]) -> None:
    receiver = Receiver(RING_KTD, pipe[0])
    os.close(pipe[1])
    pipe[1] = 0
    with pytest.raises(HandoverLost, match="before has ended"):
        receiver.take(0, 1)


def test_a_sender_learns_that_its_receiver_has_ended(pipe: list[int]) -> None:
    sender = Sender(RING_KTD, [pipe[1]])
    os.close(pipe[0])
    pipe[0] = 0
    with pytest.raises(HandoverLost, match="next stage has ended"):
        sender.hand_over(0, torch.ones(1, 3))


def test_a_wait_is_told_and_may_be_given_up(pipe: list[int]) -> None:
    delays: list[float] = []

    def see_delay(seconds: float) -> None:
        delays.append(seconds)
        if len(delays) == 3:
            raise HandoverLost("enough")

    receiver = Receiver(RING_KTD, pipe[0], see_delay, told_every_s=0.0)
    with pytest.raises(HandoverLost, match="enough"):
        receiver.take(0, 1)
    assert all(seconds >= 0 for seconds in delays)
