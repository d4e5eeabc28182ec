"""Whom a rank listens to: its leader, its neighbour, and nobody of another group."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.hosts.orders import (
    Attach,
    Busy,
    Fenced,
    Join,
    Leave,
    Load,
    Loading,
    RunStep,
)
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.parallel.messages.tensor_message import Compression, Kind, TensorHeader
from novacron.testing.scripted_listener import ScriptedListener

EPOCH, LATER = 7, 8
STEP = RunStep(num_tokens=1, num_requests=1, rows=b"", tables=b"", zeroed=())


def join(owner: str = "ours") -> Join:
    return Join(
        owner=owner,
        rank=1,
        model=ModelConfig(pipeline_parallel_size=3),
        cache=CacheConfig(),
        scheduler=SchedulerConfig(),
        compression=Compression.NONE,
        timeout_s=5.0,
        clock_ns=0,
    )


@dataclass
class Joined:
    post: RankPost
    listener: ScriptedListener


@pytest.fixture
def joined() -> Joined:
    listener = ScriptedListener()
    post = RankPost(listener)
    listener.hear(b"data", Attach(), epoch=EPOCH)
    listener.hear(b"control", join(), epoch=EPOCH)
    assert post.wait_for_group() == join()
    assert sorted(listener.vital) == [b"control", b"data"]
    return Joined(post, listener)


def test_it_waits_for_both_connections_of_one_group() -> None:
    listener = ScriptedListener()
    post = RankPost(listener)
    listener.hear(b"late half", STEP, epoch=3)
    listener.hear(b"other data", Attach(), epoch=4)
    listener.hear(b"control", join(), epoch=EPOCH)
    listener.hear(b"stranger", join("theirs"), epoch=4)
    listener.hear(b"data", Attach(), epoch=EPOCH)
    post.wait_for_group()
    assert post.epoch == EPOCH
    assert listener.said == [(b"late half", Fenced()), (b"stranger", Busy())]


def test_orders_and_hidden_states_come_each_in_their_order(joined: Joined) -> None:
    joined.post.expect({}, from_leader=True)
    joined.listener.hear_forward(b"data", epoch=EPOCH, step=0)
    joined.listener.hear(b"control", STEP, epoch=EPOCH)
    joined.listener.hear_forward(b"data", epoch=EPOCH, sequence=1, step=1)
    assert joined.post.next_order()[0] == STEP
    assert [joined.post.next_forward().header.step for _ in range(2)] == [0, 1]


def test_a_late_half_is_told_that_it_is_over_and_nothing_it_says_is_taken(joined: Joined) -> None:
    joined.post.expect({}, from_leader=True)
    joined.listener.hear_forward(b"old data", epoch=EPOCH - 1)
    joined.listener.hear(b"old control", STEP, epoch=EPOCH - 1)
    joined.listener.hear_forward(b"data", epoch=EPOCH, step=0)
    assert joined.post.next_forward().reply_to == b"data"
    assert joined.listener.said == [(b"old data", Fenced()), (b"old control", Fenced())]


def test_another_server_is_told_to_wait_and_our_own_that_begins_anew_is_made_room_for(
    joined: Joined,
) -> None:
    joined.listener.hear(b"stranger", join("theirs"), epoch=LATER)
    joined.listener.hear(b"new control", join(), epoch=LATER)
    with pytest.raises(GroupOver, match="begun anew"):
        joined.post.next_order()
    assert joined.listener.said == [(b"stranger", Busy())]


def test_hidden_states_are_taken_of_the_neighbour_that_was_vouched_for(joined: Joined) -> None:
    joined.post.expect({1: "neighbour"}, from_leader=False)
    assert joined.listener.admitted == ["neighbour"]
    joined.listener.hear_forward(b"next door", epoch=EPOCH, key="neighbour", source=1)
    assert joined.post.next_forward().reply_to == b"next door"
    assert b"next door" in joined.listener.vital  # its end is ours
    joined.listener.hear_forward(b"elsewhere", epoch=EPOCH, key="stranger", source=1)
    with pytest.raises(GroupOver, match="broken and made again"):
        joined.post.next_forward()


def test_a_neighbour_that_has_lost_something_on_the_way_is_not_taken(joined: Joined) -> None:
    joined.post.expect({1: "neighbour"}, from_leader=False)
    joined.listener.hear_forward(b"next door", epoch=EPOCH, sequence=1, key="neighbour", source=1)
    with pytest.raises(GroupOver):
        joined.post.next_forward()


def test_a_vouched_key_may_send_no_orders(joined: Joined) -> None:
    joined.post.expect({1: "neighbour"}, from_leader=False)
    joined.listener.hear(b"next door", STEP, epoch=EPOCH, key="neighbour", source=1)
    with pytest.raises(GroupOver, match="rank 1 gives orders"):
        joined.post.next_order()


def test_the_leader_sends_hidden_states_to_its_neighbour_only(joined: Joined) -> None:
    joined.post.expect({1: "neighbour"}, from_leader=False)
    joined.listener.hear_forward(b"data", epoch=EPOCH)
    with pytest.raises(GroupOver):
        joined.post.next_forward()


def test_parts_of_sums_wait_for_whoever_asks_for_them(joined: Joined) -> None:
    post, listener = joined.post, joined.listener
    post.expect({1: "neighbour"}, from_leader=True)
    listener.hear(b"next door", Attach(), epoch=EPOCH, key="neighbour", source=1)
    post.wait_for_neighbours()
    assert b"next door" in listener.vital
    listener.hear_partial(b"data", epoch=EPOCH, sequence=1, source=0)
    listener.hear_partial(b"next door", epoch=EPOCH, sequence=1, source=1)
    listener.hear(b"control", STEP, epoch=EPOCH)
    found = [post.next_partial(source, 1.0) for source in (1, 0)]
    assert [one.reply_to for one in found if one is not None] == [b"next door", b"data"]
    assert post.next_order()[0] == STEP
    post.send_to(1, TensorHeader(kind=Kind.PARTIAL), b"")
    assert listener.handed_back == [TensorHeader(kind=Kind.PARTIAL)]


def test_it_ends_with_its_leader(joined: Joined) -> None:
    joined.listener.hear(b"control", Leave(), epoch=EPOCH)
    with pytest.raises(GroupOver, match="leader has ended it"):
        joined.post.next_order()
    joined.listener.gone = {b"control"}
    with pytest.raises(GroupOver, match="it is gone"):
        joined.post.tell(Loading(0.5))


def test_the_way_back_is_the_lane_for_tensors(joined: Joined) -> None:
    joined.post.hand_back(TensorHeader(kind=Kind.FORWARD, step=4), b"")
    assert joined.listener.handed_back[0].step == 4


def test_an_order_to_load_is_passed_on(joined: Joined) -> None:
    load = Load(stops=(2, 4, 5), num_blocks=9, max_model_len=64)
    joined.listener.hear(b"control", load, epoch=EPOCH)
    assert joined.post.next_order()[0] == load
