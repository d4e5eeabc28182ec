from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.states import state

from novacron.scheduler.request_state import RequestState
from novacron.scheduler.standing_queues import FCFSQueue, PriorityQueue
from novacron.scheduler.waiting_queue import WaitingQueue


def pop(queue: WaitingQueue) -> RequestState:
    head = queue.peek()
    assert head is not None
    queue.take(head)
    return head


def drain(queue: WaitingQueue) -> list[int]:
    order = []
    while (head := queue.peek()) is not None:
        assert pop(queue) is head
        order.append(head.arrival_index)
    assert len(queue) == 0
    return order


def filled(queue: WaitingQueue, *priorities: int) -> list[RequestState]:
    states = [state(index, priority) for index, priority in enumerate(priorities)]
    for each in states:
        queue.add(each)
    return states


def test_fcfs_keeps_the_order_of_arrival_whatever_the_priority() -> None:
    queue = FCFSQueue()
    filled(queue, 3, 1, 2)
    assert drain(queue) == [0, 1, 2]


def test_lower_priority_numbers_go_first_then_earlier_arrivals() -> None:
    queue = PriorityQueue()
    filled(queue, 1, 0, 1, -5, 0)
    assert drain(queue) == [3, 1, 4, 0, 2]


@pytest.mark.parametrize("queue_type", [FCFSQueue, PriorityQueue])
def test_preempted_requests_come_before_those_that_arrived_later(
    queue_type: type[FCFSQueue] | type[PriorityQueue],
) -> None:
    queue: WaitingQueue = queue_type()
    filled(queue, 0, 0, 0, 0)
    first, second = pop(queue), pop(queue)
    queue.put_back(second)
    queue.put_back(first)
    assert drain(queue) == [0, 1, 2, 3]


def test_a_preempted_request_does_not_overtake_a_higher_priority() -> None:
    queue = PriorityQueue()
    filled(queue, 5)
    preempted = pop(queue)
    queue.add(state(1, priority=0))
    queue.put_back(preempted)
    assert drain(queue) == [1, 0]


def test_only_a_higher_priority_outranks() -> None:
    early, late = state(0, priority=1), state(1, priority=1)
    urgent = state(2, priority=0)
    assert PriorityQueue().outranks(urgent, early)
    assert not PriorityQueue().outranks(early, urgent)
    assert not PriorityQueue().outranks(early, late)
    assert not FCFSQueue().outranks(urgent, early)


def test_removed_requests_leave_no_memory_behind_while_the_head_stays() -> None:
    queue = PriorityQueue()
    queue.add(state(0, priority=-1))
    for index in range(1, 1000):
        queue.add(state(index))
        queue.remove(f"r{index}")
    assert len(queue._heap._entries) < 50
    assert drain(queue) == [0]


@pytest.mark.parametrize("queue_type", [FCFSQueue, PriorityQueue])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["stay", "remove", "pop", "preempt"])))
)
def test_any_use_gives_the_order_of_sorting(
    queue_type: type[FCFSQueue] | type[PriorityQueue], uses: list[tuple[int, str]]
) -> None:
    queue: WaitingQueue = queue_type()
    expected: list[RequestState] = []

    def order(each: RequestState) -> tuple[int, int]:
        priority = each.request.priority if queue_type is PriorityQueue else 0
        return priority, each.arrival_index

    for index, (priority, use) in enumerate(uses):
        new = state(index, priority)
        queue.add(new)
        expected = sorted([*expected, new], key=order)
        if use == "remove":
            queue.remove(new.request.request_id)
            expected.remove(new)
        elif use == "pop":
            assert pop(queue) is expected.pop(0)
        elif use == "preempt":
            queue.put_back(pop(queue))
        assert len(queue) == len(expected)
        assert queue.peek() is (expected[0] if expected else None)
    assert drain(queue) == [each.arrival_index for each in expected]
