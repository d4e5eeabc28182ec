from __future__ import annotations

import socket
import threading

import pytest

from novacron.executor.rank_connection import RankConnection
from novacron.executor.rank_messages import ComputeLogits, RunStep, ToRank

MESSAGES = (
    RunStep(5, 2, 3, (4,)),
    ComputeLogits(()),
    ComputeLogits(tuple(range(100_000))),
    RunStep(1, 1, 1, ()),
)


def test_messages_of_all_sizes_arrive_in_order_and_then_the_end() -> None:
    ends = socket.socketpair()
    leader = RankConnection[ToRank, ToRank](ends[0], ToRank)
    follower = RankConnection[ToRank, ToRank](ends[1], ToRank)

    def lead() -> None:
        for message in MESSAGES:
            leader.send(message)
        leader.close()

    thread = threading.Thread(target=lead)
    thread.start()
    assert tuple(follower.receive() for _ in MESSAGES) == MESSAGES
    with pytest.raises(EOFError):
        follower.receive()
    thread.join()
    follower.close()


def test_who_speaks_to_nobody_is_told() -> None:
    ends = socket.socketpair()
    leader = RankConnection[ToRank, ToRank](ends[0], ToRank)
    ends[1].close()
    with pytest.raises(OSError, match="Broken pipe"):
        leader.send(MESSAGES[0])
    leader.close()


def test_patience_ends_where_nothing_comes_and_not_where_something_does() -> None:
    ends = socket.socketpair()
    leader = RankConnection[ToRank, ToRank](ends[0], ToRank)
    follower = RankConnection[ToRank, ToRank](ends[1], ToRank)
    with pytest.raises(TimeoutError):
        follower.receive(0.01)
    with pytest.raises(TimeoutError):
        follower.receive(0.25)
    leader.send(MESSAGES[0])
    assert follower.receive(0.01) == MESSAGES[0]
    leader.close()
    with pytest.raises(EOFError):
        follower.receive(60.0)
    follower.close()
