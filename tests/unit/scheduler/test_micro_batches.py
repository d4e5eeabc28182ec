"""Several steps in flight: who is in which of them, and who waits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from novacron.config.scheduler import SchedulerConfig
from novacron.records.request import Request, SamplingParams
from novacron.records.step import SchedulerOutput
from novacron.scheduler.micro_batches import most_requests, most_tokens
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens


@given(st.integers(0, 500), st.integers(1, 16))
def test_as_many_steps_as_may_be_in_flight_take_everybody(num_running: int, depth: int) -> None:
    share = most_requests(num_running, depth)
    assert share * depth >= num_running
    assert (share - 1) * depth < max(num_running, 1)


@given(st.integers(1, 5000), st.integers(0, 100_000), st.integers(0, 500), st.integers(1, 16))
def test_a_step_has_a_token_for_each_request_and_keeps_within_its_budget(
    extra: int, num_pending: int, num_running: int, depth: int
) -> None:
    budget = num_running + extra
    found = most_tokens(budget, num_pending, num_running, depth)
    assert num_running < found <= budget
    if depth == 1:
        assert found == budget


def driver_of(depth: int, *, num_blocks: int = 64, num_seqs: int = 8) -> SchedulerDriver:
    spec = fake_spec(num_blocks=num_blocks, block_size=4)
    executor = FakeExecutor(spec, max_steps_in_flight=depth)
    return SchedulerDriver(
        SchedulerConfig(max_num_seqs=num_seqs, max_num_batched_tokens=512), executor
    )


def request(name: str, num_prompt: int, max_tokens: int) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=0)
    prompt = tuple(ord(name[0]) % 50 + place % 7 for place in range(num_prompt))
    return Request(request_id=name, prompt_token_ids=prompt, sampling=sampling, arrival_time_s=0.0)


def ids(step: SchedulerOutput) -> set[str]:
    return {part.request_id for part in step.scheduled}


def test_running_requests_are_shared_out_to_the_steps_in_flight() -> None:
    driver = driver_of(2)
    for name in "abcdefg":
        driver.scheduler.add(request(name, 3, 30))
    steps = [driver.step() for _ in range(9)]
    for one, next_one in pairwise(steps[3:]):
        assert ids(one).isdisjoint(ids(next_one))
        assert ids(one) | ids(next_one) == set("abcdefg")
        assert {len(ids(one)), len(ids(next_one))} == {3, 4}


def test_chunks_of_a_prompt_follow_each_other_at_once() -> None:
    driver = driver_of(2, num_blocks=256)
    driver.scheduler.add(request("a", 600, 2))
    first = driver.schedule()
    driver._submit(first)
    second = driver.schedule()
    [one], [other] = first.scheduled, second.scheduled
    assert one.start == 0
    assert other.start == one.num_tokens
    assert one.num_tokens < 600 / 2


def test_nobody_in_flight_is_preempted_and_everybody_gets_what_one_alone_gets() -> None:
    driver = driver_of(3, num_blocks=12)
    requests = [request(name, 6, 20) for name in "abcdef"]
    for one in requests:
        driver.scheduler.add(one)
    driver.run()
    assert driver.scheduler.stats().num_preemptions > 0
    for one in requests:
        assert driver.tokens(one.request_id) == expected_tokens(one, driver.executor.spec)[0]


def test_blocks_of_an_aborted_request_are_kept_until_its_steps_have_ended() -> None:
    driver = driver_of(2, num_blocks=256)
    driver.scheduler.add(request("a", 600, 2))
    for _ in range(2):
        driver._submit(driver.schedule())
    used = driver.kv_cache.num_used_blocks
    driver.abort("a")
    assert driver.kv_cache.num_used_blocks == used
    driver._collect()
    assert driver.kv_cache.num_used_blocks == used
    driver._collect()
    assert driver.kv_cache.num_used_blocks == 0
