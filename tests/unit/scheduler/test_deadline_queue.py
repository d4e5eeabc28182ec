from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.states import state

from novacron.config.scheduler import SchedulerConfig
from novacron.scheduler.deadline_queue import DeadlineQueue
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.step_pace import StepPace
from novacron.testing.clock import FakeClock
from novacron.testing.shared_load import SharedLoad, Tenant


def with_objective(arrival_index: int, ttft_slo_s: float) -> RequestState:
    one = state(arrival_index)
    one.request = msgspec.structs.replace(one.request, ttft_slo_s=ttft_slo_s)
    return one


def order_of(queue: DeadlineQueue) -> list[str]:
    taken = []
    while (head := queue.peek()) is not None:
        queue.take(head)
        taken.append(head.request.request_id)
    return taken


def load(policy: str, tenants: list[Tenant], **fields: Any) -> SharedLoad:
    limits: dict[str, Any] = {"max_num_seqs": 8, "max_num_batched_tokens": 256, **fields}
    return SharedLoad(tenants, SchedulerConfig(scheduling_policy=policy, **limits))  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(10, 100)), max_size=12))
def test_whose_first_token_is_due_first_goes_first(requests: list[tuple[float, float]]) -> None:
    """Objectives are longer than it takes for all to come: none is late."""
    clock = FakeClock()
    queue = DeadlineQueue(clock)
    due_s = []
    for number, (later_s, objective_s) in enumerate(requests):
        clock.advance(later_s / max(1, len(requests)))
        queue.add(with_objective(number, objective_s))
        due_s.append((clock() + objective_s, number))
    assert order_of(queue) == [f"r{number}" for _, number in sorted(due_s)]


def test_who_is_late_lets_go_first_who_can_be_in_time_but_not_for_ever() -> None:
    clock = FakeClock()
    queue = DeadlineQueue(clock)
    queue.add(with_objective(0, 1.0))
    clock.advance(2.0)
    queue.add(with_objective(1, 1.0))
    assert queue.peek() is not None
    assert order_of(queue) == ["r1", "r0"]
    queue.add(with_objective(0, 1.0))
    clock.advance(2.0)
    queue.peek()
    clock.advance(3.5)
    queue.add(with_objective(1, 1.0))
    assert order_of(queue) == ["r0", "r1"], "due at 5 s, the other at 6.5 s"


def test_an_interactive_request_takes_the_seat_of_a_patient_one() -> None:
    patient = Tenant("a", 20, 16, 1000, ttft_slo_s=300.0)
    urgent = Tenant("b", 0, 16, 10, ttft_slo_s=0.5)
    one = load("deadline", [patient])
    for _ in range(5):
        one.step()
    request_id = one.send(urgent, one.clock())
    assert request_id in [part.request_id for part in one.step().scheduled]
    assert one.scheduler.stats().num_preemptions == 1


def test_who_has_said_how_fast_he_reads_keeps_his_seat() -> None:
    reader = Tenant("a", 20, 16, 1000, ttft_slo_s=300.0, tpot_slo_s=0.1)
    one = load("deadline", [reader])
    for _ in range(5):
        one.step()
    one.send(Tenant("b", 0, 16, 10, ttft_slo_s=0.5), one.clock())
    one.step()
    assert one.scheduler.stats().num_preemptions == 0


def test_more_meet_their_objective_than_first_come_first_served() -> None:
    met = {}
    for policy in ("deadline", "fcfs"):
        soon = Tenant("soon", 2, 64, 8, ttft_slo_s=0.1, pause_s=0.05)
        later = Tenant("later", 40, 256, 64, ttft_slo_s=60.0)
        load(policy, [soon, later]).run(4)
        assert later.num_ended > 10
        met[policy] = sum(ttft_s <= 0.1 for ttft_s in soon.ttfts_s) / max(1, len(soon.ttfts_s))
    assert met["deadline"] > 0.95
    assert met["fcfs"] < 0.5


def test_prompts_leave_running_answers_their_pace() -> None:
    """Of 20 ms a token, where a step takes 1 ms and 0.05 ms a token: at most some 300 tokens."""
    reader = Tenant("reader", 4, 16, 200, tpot_slo_s=0.02)
    prompts = Tenant("prompts", 4, 3000, 4)
    one = load("deadline", [reader, prompts], max_num_batched_tokens=2048)
    for _ in range(20):
        one.step()
    sizes = [one.step().num_tokens for _ in range(30)]
    assert 100 < max(sizes) <= 330
    reader.tpot_slo_s = 0.0
    one = load("deadline", [Tenant("reader", 4, 16, 200), Tenant("prompts", 4, 3000, 4)],
               max_num_batched_tokens=2048)  # fmt: skip
    assert max(one.step().num_tokens for _ in range(30)) == 2048


def test_before_it_has_seen_steps_it_limits_nothing_and_later_never_everything() -> None:
    pace = StepPace()
    pace.begin(0.0, [0.001])
    assert pace.most_tokens(1000) == 1000
    for number in range(1, 30):
        pace.see(100)
        pace.begin(float(number), [0.001])
    assert pace.most_tokens(1000) == 16
