"""What a rank counts, as another process reads it."""

from __future__ import annotations

import os

import numpy as np
import torch

from novacron.parallel.handover import Receiver, Sender
from novacron.parallel.traffic import COUNTERS, RankTraffic, Traffic


def test_steps_bytes_and_meetings_add_up() -> None:
    row = np.zeros(COUNTERS, np.int64)
    mine, theirs = RankTraffic(row), RankTraffic(row)  # of two processes that share the memory
    for totals in ((3, 100, 7), (5, 160, 9)):  # as kernels have them by then
        mine.see_step()
        mine.see_sent(1000)
        mine.see_wait(50)
        mine.see_meetings(*totals)
    assert theirs.read() == Traffic(2, 5, 2000 + 160, 100 + 9)


def test_a_handover_counts_what_was_sent_and_how_long_it_was_waited_for() -> None:
    ring_KTD = torch.zeros(1, 4, 2)
    reading, writing = os.pipe()
    sent, waited = RankTraffic(), RankTraffic()
    try:
        sender = Sender(ring_KTD, [writing], sent)
        receiver = Receiver(ring_KTD, reading, traffic=waited)
        sender.hand_over(0, torch.ones(3, 2))
        receiver.take(0, 3)
    finally:
        os.close(reading)
        os.close(writing)
    assert sent.read() == Traffic(sent_bytes=3 * 2 * 4)
    assert waited.read().waited_ns > 0
    assert waited.read().sent_bytes == 0
