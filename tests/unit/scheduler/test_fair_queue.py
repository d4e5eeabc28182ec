"""What the fair order decides, one decision at a time; over time: test_fair_shares.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.states import state

from novacron.config.scheduler import SchedulerConfig
from novacron.records.output import EngineOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.scheduler.fair_queue import FairQueue
from novacron.testing.clock import FakeClock
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.scheduler_driver import SchedulerDriver
from novacron.testing.shared_load import SharedLoad, Tenant


def new_queue(clock: FakeClock, ageing_s: float = 30.0) -> FairQueue:
    return FairQueue(ageing_s=ageing_s, chunk_tokens=128, clock=clock)


def order_of(queue: FairQueue) -> list[str]:
    taken = []
    while (head := queue.peek()) is not None:
        queue.take(head)
        queue.see_start(head, 0)
        queue.see_part(head, 0, head.num_tokens)
        taken.append(head.request.request_id)
    return taken


def load(tenants: list[Tenant], **fields: Any) -> SharedLoad:
    limits: dict[str, Any] = {"max_num_seqs": 8, "max_num_batched_tokens": 256, **fields}
    return SharedLoad(tenants, SchedulerConfig(**limits))


def running(load: SharedLoad) -> list[str]:
    return sorted(state.request.tenant for state in load.scheduler._running)


def test_tenants_take_turns_and_the_requests_of_one_come_in_order() -> None:
    queue = new_queue(FakeClock())
    for number, tenant in enumerate("aaabbc"):
        queue.add(state(number, tenant=tenant))
    assert order_of(queue) == ["r0", "r3", "r5", "r1", "r4", "r2"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-20, 20)), max_size=20))
def test_nobody_goes_before_one_who_is_more_urgent(requests: list[tuple[str, int]]) -> None:
    queue = new_queue(FakeClock())
    for number, (tenant, priority) in enumerate(requests):
        queue.add(state(number, priority, tenant=tenant))
    priorities = [requests[int(name[1:])][1] for name in order_of(queue)]
    assert priorities == sorted(priorities)


@given(
    priorities=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    waits_s=st.lists(st.floats(0, 100), min_size=2, max_size=6),
)
def test_ageing_only_ever_helps(priorities: tuple[int, int], waits_s: list[float]) -> None:
    """Once a request that waits goes before those that come, it does so from then on."""
    early, late = priorities
    went_first = []
    for wait_s in sorted(waits_s):
        clock = FakeClock()
        queue = new_queue(clock)
        queue.add(state(0, early, tenant="a"))
        clock.advance(wait_s)
        queue.add(state(1, late, tenant="b"))
        went_first.append(order_of(queue)[0] == "r0")
    assert went_first == sorted(went_first)
    if early <= late:
        assert all(went_first)


@pytest.mark.parametrize(("wait_s", "first"), [(59.0, "r1"), (61.0, "r0")])
def test_low_is_as_high_after_two_steps_of_ageing(wait_s: float, first: str) -> None:
    clock = FakeClock()
    queue = new_queue(clock)
    queue.add(state(0, 10, tenant="a"))
    clock.advance(wait_s)
    queue.add(state(1, -10, tenant="b"))
    assert order_of(queue)[0] == first


def test_a_quiet_tenant_takes_a_seat_at_once_and_more_only_from_who_has_twice_as_many() -> None:
    loud, quiet = Tenant("loud", 20, 16, 1000), Tenant("quiet", 0, 16, 1000)
    one = load([loud])
    for _ in range(5):
        one.step()
    assert running(one) == ["loud"] * 8
    for _ in range(6):
        one.send(quiet, one.clock())
    one.step()
    assert running(one) == ["loud"] * 5 + ["quiet"] * 3, "a third one of 6, but no fourth one of 5"
    for _ in range(300):
        one.step()
    assert running(one) == ["loud"] * 5 + ["quiet"] * 3
    assert one.scheduler.stats().num_preemptions == 3, "nobody takes one back"


def test_an_urgent_request_starts_in_the_next_step_whatever_runs() -> None:
    flood, urgent = Tenant("a", 20, 16, 1000, priority=10), Tenant("a", 0, 200, 10, priority=-10)
    one = load([flood])
    for _ in range(5):
        one.step()
    request_id = one.send(urgent, one.clock())
    decision = one.step()
    assert [part.request_id for part in decision.scheduled] == [request_id], "alone"
    assert len(one.step().scheduled) == 8, "with the others, from its second token on"


def test_who_is_left_out_of_steps_comes_back_after_a_while() -> None:
    """There may be a prompt that is more urgent in every step."""
    urgent = Tenant("a", 4, 200, 1, priority=-10)
    low = Tenant("a", 1, 16, 1000, priority=10)
    one = load([low], priority_ageing=1.0)
    one.step()
    one._due += [(one.clock(), urgent)] * 4
    tokens = []
    for _ in range(3):
        before = low.tokens
        one.run(1.5)
        tokens.append(low.tokens - before)
    assert min(tokens) > 0
    assert max(tokens) < 10


def test_prompts_are_in_small_parts_only_while_somebody_else_may_come() -> None:
    loud, quiet = Tenant("loud", 0, 2000, 1), Tenant("quiet", 0, 16, 1)

    def largest_part() -> int:
        one.send(loud, one.clock())
        one.send(loud, one.clock())
        one._due = []
        sizes = [part.num_tokens for _ in range(4) for part in one.step().scheduled]
        while one.scheduler.has_work:  # a last one is nobody's flood
            one.step()
            one._due = []
        return max(sizes)

    one = load([])
    assert largest_part() > 200
    one.send(quiet, one.clock())
    one.step()
    assert largest_part() <= 128
    one.clock.advance(60.0)
    assert largest_part() > 200


def shed(requests: list[tuple[str, int, float]], most_live: int) -> list[str]:
    """Who is sent away if they come one by one."""
    driver = SchedulerDriver(
        SchedulerConfig(max_num_seqs=2, max_num_batched_tokens=64),
        FakeExecutor(fake_spec()),
        most_live=most_live,
    )
    for number, (tenant, priority, weight) in enumerate(requests):
        driver.scheduler.add(
            Request(
                request_id=f"r{number}",
                prompt_token_ids=(1, 2, 3),
                sampling=SamplingParams(max_tokens=2, seed=0),
                arrival_time_s=0.0,
                tenant=tenant,
                priority=priority,
                weight=weight,
            )
        )
    driver.run()
    finals: dict[str, EngineOutput] = {name: driver.final(name) for name in driver.outputs}
    gone = {name for name, final in finals.items() if final.was_shed}
    assert all(
        (finals[name].finish_reason is FinishReason.ERROR) == (name in gone) for name in finals
    )
    assert driver.scheduler.stats().num_shed == len(gone) == max(0, len(requests) - most_live)
    return sorted(gone)


def test_too_many_cost_the_least_urgent_first() -> None:
    assert shed([("a", 10, 1), ("a", 0, 1), ("b", 0, 1), ("c", -10, 1)], most_live=3) == ["r0"]
    assert shed([("a", -10, 1), ("b", 0, 1), ("c", 10, 1)], most_live=2) == ["r2"]


def test_of_equals_the_newest_of_who_has_most_waiting_goes() -> None:
    assert shed([("a", 0, 1)] * 4 + [("b", 0, 1)], most_live=4) == ["r3"]
    assert shed([("a", 0, 4)] * 4 + [("b", 0, 1)] * 2, most_live=5) == ["r5"], "a has the weight"


def test_whatever_has_begun_stays() -> None:
    driver = SchedulerDriver(
        SchedulerConfig(max_num_seqs=2, max_num_batched_tokens=64),
        FakeExecutor(fake_spec()),
        most_live=1,
    )
    requests = [
        Request(
            request_id=name,
            prompt_token_ids=(1, 2),
            sampling=SamplingParams(max_tokens=3, ignore_eos=True, seed=0),
            arrival_time_s=0.0,
            output_token_ids=(7,) * (name == "continued"),
        )
        for name in ("running", "continued", "new")
    ]
    driver.scheduler.add(requests[0])
    driver.step()
    driver.scheduler.add(requests[1])  # over the limit, and it cannot be helped
    driver.scheduler.add(requests[2])
    driver.run()
    assert [driver.final(one.request_id).was_shed for one in requests] == [False, False, True]
