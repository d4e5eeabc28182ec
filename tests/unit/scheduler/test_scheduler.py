from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from novacron.config.scheduler import SchedulerConfig
from novacron.errors import InvalidRequest, PromptTooLong
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.records.step import ModelRunnerOutput, SchedulerOutput, StepResult
from novacron.testing.fake_executor import FakeExecutor, fake_spec
from novacron.testing.scheduler_driver import SchedulerDriver, expected_tokens

BLOCK_SIZE = 4


def drive(
    *,
    num_blocks: int = 64,
    max_model_len: int = 200,
    caching: bool = True,
    fail_at: dict[str, int] | None = None,
    tokens_per_step: int = 1,
    **config: Any,
) -> SchedulerDriver:
    spec = fake_spec(
        num_blocks=num_blocks, block_size=BLOCK_SIZE, max_model_len=max_model_len, vocab_size=50
    )
    return SchedulerDriver(
        SchedulerConfig(**{"max_num_seqs": 8, "max_num_batched_tokens": 16, **config}),
        FakeExecutor(spec, fail_at=fail_at, tokens_per_step=tokens_per_step),
        enable_prefix_caching=caching,
    )


def request(
    request_id: str, prompt: Sequence[int] | int = 3, *, max_tokens: int | None = 4, **fields: Any
) -> Request:
    """A request for `max_tokens` tokens. A number as prompt: so many tokens like no other's."""
    if isinstance(prompt, int):
        prompt = [ord(request_id[-1]) % 50] * prompt
    sampling = fields.pop("sampling", {})
    return Request(
        request_id=request_id,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(
            max_tokens=max_tokens, seed=0, **{"ignore_eos": "eos" not in request_id, **sampling}
        ),
        arrival_time_s=0.0,
        **fields,
    )


def add(driver: SchedulerDriver, *requests: Request) -> None:
    for each in requests:
        driver.scheduler.add(each)


def parts(decision: SchedulerOutput) -> dict[str, tuple[int, int]]:
    return {p.request_id: (p.start, p.num_tokens) for p in decision.scheduled}


def check_tokens(driver: SchedulerDriver, *requests: Request) -> None:
    """The requests have come to their normal end with just the tokens they have alone."""
    for each in requests:
        expected, reason = expected_tokens(each, driver.executor.spec)
        assert driver.tokens(each.request_id) == expected
        assert driver.final(each.request_id).finish_reason is reason


# One request


def test_a_request_is_computed_and_ends_with_its_length() -> None:
    driver = drive()
    alone = request("a", 5)
    add(driver, alone)
    assert driver.scheduler.has_work
    assert [parts(d) for d in driver.run()] == [{"a": (0, 5)}] + [{"a": (p, 1)} for p in (5, 6, 7)]
    assert driver.final("a").finish_reason is FinishReason.LENGTH
    check_tokens(driver, alone)
    assert not driver.scheduler.has_work


def test_times_come_with_the_first_output_and_the_last() -> None:
    driver = drive()
    add(driver, request("a"))
    started_s = driver.clock()
    while driver.scheduler.has_work:
        driver.step()
        driver.clock.advance(1)
    times = [output.first_scheduled_time_s for output in driver.outputs["a"]]
    assert times == [started_s, None, None, started_s]


def test_a_stop_token_ends_a_request_and_is_part_of_its_tokens() -> None:
    driver = drive()
    tokens, _ = expected_tokens(request("a"), driver.executor.spec)
    add(driver, request("a", max_tokens=None, sampling={"stop_token_ids": (tokens[2],)}))
    driver.run()
    assert driver.tokens("a") == tokens[:3]
    assert driver.final("a").finish_reason is FinishReason.STOP
    assert driver.final("a").stop_token_id == tokens[2]


def test_the_context_bounds_the_output() -> None:
    driver = drive(max_model_len=10)
    add(driver, request("a", 7, max_tokens=None), request("b", 10, max_tokens=5))
    driver.run()
    assert len(driver.tokens("a")) == 3
    assert driver.tokens("b") == []
    assert driver.final("a").finish_reason is driver.final("b").finish_reason is FinishReason.LENGTH


def test_no_tokens_asked_for_means_that_only_the_prompt_is_computed() -> None:
    driver = drive()
    add(driver, request("a", [1, 2, 3], max_tokens=0, sampling={"prompt_logprobs": 0}))
    assert len(driver.run()) == 1
    assert [p.token_ids[0] for p in driver.final("a").prompt_logprobs] == [2, 3]
    assert driver.tokens("a") == []


def test_a_result_with_several_tokens_may_stop_midway() -> None:
    driver = drive(tokens_per_step=3)
    a = request("a", max_tokens=5, sampling={"logprobs": 0})
    add(driver, a)
    assert [parts(d) for d in driver.run()] == [{"a": (0, 3)}, {"a": (3, 3)}]
    check_tokens(driver, a)
    assert [len(output.logprobs) for output in driver.outputs["a"]] == [3, 2]
    assert driver.scheduler.stats().generation_tokens == 5


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_pooling_request_ends_with_its_embedding_once_the_prompt_is_computed(
    pooling: str,
) -> None:
    driver = drive()
    add(driver, request("a", 20, pooling=pooling))
    assert len(driver.run()) == 2
    (only,) = driver.outputs["a"]
    assert only.finish_reason is FinishReason.STOP
    assert only.embedding is not None
    assert only.new_token_ids == ()


def test_tokens_of_an_earlier_life_count_as_output() -> None:
    driver = drive()
    whole = request("a", max_tokens=6)
    tokens, _ = expected_tokens(whole, driver.executor.spec)
    continued = request("a", max_tokens=6, output_token_ids=tuple(tokens[:4]))
    add(driver, continued)
    first = driver.step().new_requests[0]
    assert (first.num_prompt_tokens, len(first.token_ids)) == (3, 7)
    driver.run()
    assert driver.tokens("a") == tokens[4:]
    assert driver.scheduler.stats().prompt_tokens == 3


def test_a_continued_request_that_had_all_its_tokens_ends_without_a_step() -> None:
    driver = drive()
    add(driver, request("a", output_token_ids=(1, 2, 3, 4)), request("eos", output_token_ids=(0,)))
    assert driver.scheduler.has_work
    (decision,) = driver.run()
    assert decision.scheduled == ()
    assert driver.final("a").finish_reason is FinishReason.LENGTH
    assert driver.final("eos").finish_reason is FinishReason.STOP


# What is not accepted


def test_the_id_of_a_live_request_is_refused_and_the_live_one_unharmed() -> None:
    driver = drive()
    a = request("a")
    add(driver, a)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="'a' is in use"):
            add(driver, request("a", 30))
        driver.step()
    driver.run()
    check_tokens(driver, a)


def test_an_id_can_be_used_again_at_once_even_while_its_step_is_computed() -> None:
    driver = drive()
    add(driver, request("a", 6, max_tokens=20))
    driver.step()
    decision = driver.schedule()
    driver.abort("a")
    again = request("a", [1, 2, 3, 4, 5])
    add(driver, again)
    driver.outputs.clear()
    driver.finish(decision)
    assert driver.outputs == {}
    driver.run()
    check_tokens(driver, again)


def test_prompts_that_are_empty_or_longer_than_the_context_are_refused() -> None:
    driver = drive(max_model_len=10)
    with pytest.raises(InvalidRequest, match="no tokens"):
        add(driver, request("a", []))
    with pytest.raises(PromptTooLong, match=r"11 tokens.*10 tokens"):
        add(driver, request("a", 8, output_token_ids=(1, 2, 3)))
    assert not driver.scheduler.has_work


# Many requests, one budget


def test_requests_join_and_leave_between_steps() -> None:
    driver = drive()
    requests = [request("a", 5, max_tokens=2), request("b", 3), request("c", 4)]
    add(driver, *requests[:2])
    assert parts(driver.step()) == {"a": (0, 5), "b": (0, 3)}
    add(driver, requests[2])
    assert parts(driver.step()) == {"a": (5, 1), "b": (3, 1), "c": (0, 4)}
    decision = driver.step()
    assert parts(decision) == {"b": (4, 1), "c": (4, 1)}
    assert decision.finished_ids == ("a",)
    driver.run()
    check_tokens(driver, *requests)


def test_a_long_prompt_is_computed_in_chunks_beside_running_requests() -> None:
    driver = drive(max_num_batched_tokens=10)
    requests = [request("a", 3, max_tokens=6), request("b", 3, max_tokens=6), request("c", 20)]
    add(driver, *requests)
    assert parts(driver.step()) == {"a": (0, 3), "b": (0, 3), "c": (0, 4)}
    assert parts(driver.step()) == {"a": (3, 1), "b": (3, 1), "c": (4, 8)}
    assert parts(driver.step()) == {"a": (4, 1), "b": (4, 1), "c": (12, 8)}
    driver.run()
    check_tokens(driver, *requests)


def test_a_long_prompt_that_runs_first_leaves_a_token_to_each_behind_it() -> None:
    driver = drive(max_num_batched_tokens=10, scheduling_policy="priority")
    requests = [request("a", 3, max_tokens=8), request("b", 3, max_tokens=8)]
    add(driver, *requests)
    driver.step()
    long = request("c", 24, priority=-1)
    add(driver, long)
    for _ in range(3):
        decision = parts(driver.step())
        assert list(decision) == ["c", "a", "b"]
        assert [n for _, n in decision.values()] == [8, 1, 1]
    driver.run()
    check_tokens(driver, *requests, long)


def test_no_more_requests_run_than_there_are_seats() -> None:
    driver = drive(max_num_seqs=2)
    requests = [request(name) for name in "abc"]
    add(driver, *requests)
    assert list(parts(driver.step())) == ["a", "b"]
    assert driver.scheduler.num_waiting == 1
    driver.run()
    check_tokens(driver, *requests)


def test_nobody_overtakes_a_waiting_request() -> None:
    driver = drive(num_blocks=8)
    add(driver, request("a", 12), request("b", 25), request("c", 2))
    assert list(parts(driver.step())) == ["a"]
    started = [new.request_id for decision in driver.run() for new in decision.new_requests]
    assert started == ["b", "c"]


def test_a_stream_of_small_requests_does_not_starve_a_big_one() -> None:
    driver = drive(num_blocks=10, max_num_seqs=4)
    add(driver, *(request(f"early-{i}", 8) for i in range(3)), request("big", 32))
    for number in range(60):
        add(driver, request(f"late-{number}", 8))
        driver.step()
    assert driver.final("big").finish_reason is FinishReason.LENGTH


def test_without_chunking_a_prompt_waits_until_it_fits_into_a_step() -> None:
    driver = drive(max_num_batched_tokens=12, enable_chunked_prefill=False)
    requests = [request("a", 4, max_tokens=2), request("b", 9, max_tokens=2), request("c", 2)]
    add(driver, *requests)
    assert parts(driver.step()) == {"a": (0, 4)}
    assert parts(driver.step()) == {"a": (4, 1), "b": (0, 9), "c": (0, 2)}
    driver.run()
    check_tokens(driver, *requests)


def test_without_chunking_a_prompt_above_the_whole_budget_is_served_in_parts() -> None:
    driver = drive(max_num_batched_tokens=12, enable_chunked_prefill=False)
    requests = [request("a", 30), request("b", 12)]
    add(driver, *requests)
    assert parts(driver.step()) == {"a": (0, 12)}
    driver.run()
    check_tokens(driver, *requests)


def test_what_is_nobodys_is_computed_and_not_counted() -> None:
    driver = drive(max_num_batched_tokens=64)
    counted = request("counted", 12)
    add(driver, counted)
    driver.run()
    before = driver.scheduler.stats()
    canary = msgspec.structs.replace(request("canary", 9), uncounted=True)
    add(driver, canary)
    driver.run()
    check_tokens(driver, counted, canary)
    after = driver.scheduler.stats()
    assert after.num_steps > before.num_steps
    for name in ("prompt_tokens", "generation_tokens", "prefix_queries_tokens", "shares"):
        assert getattr(after, name) == getattr(before, name) != 0


# Shared prefixes


PREFIX = list(range(1, 13))


def test_copies_of_one_prompt_share_its_blocks_from_the_first_step() -> None:
    driver = drive(max_num_batched_tokens=64)
    copies = [request(name, PREFIX) for name in "abc"]
    add(driver, *copies)
    assert parts(driver.step()) == {"a": (0, 12), "b": (8, 4), "c": (8, 4)}
    driver.run()
    check_tokens(driver, *copies)
    assert [driver.final(name).num_cached_tokens for name in "abc"] == [0, 8, 8]
    stats = driver.scheduler.stats()
    assert (stats.prefix_queries_tokens, stats.prefix_hits_tokens) == (36, 16)
    assert stats.prompt_tokens == 20


def test_a_later_request_finds_prompt_and_output_of_an_earlier_one() -> None:
    driver = drive()
    add(driver, request("a", PREFIX, max_tokens=10))
    driver.run()
    turn = request("b", [*PREFIX, *driver.tokens("a"), 1, 2])
    add(driver, turn)
    assert parts(driver.step()) == {"b": (20, 4)}
    driver.run()
    check_tokens(driver, turn)


def test_a_prefix_is_not_shared_across_salts() -> None:
    driver = drive(max_num_batched_tokens=64)
    add(driver, request("a", PREFIX, cache_salt="x"), request("b", PREFIX, cache_salt="y"))
    assert parts(driver.step()) == {"a": (0, 12), "b": (0, 12)}
    driver.run()
    assert driver.executor.reads == {("a", "a"), ("b", "b")}


@pytest.mark.parametrize("fields", [{"sampling": {"prompt_logprobs": 0}}, {"pooling": "mean"}])
def test_requests_that_need_their_whole_prompt_fill_the_cache_but_do_not_read_it(
    fields: dict[str, Any],
) -> None:
    driver = drive()
    add(driver, request("a", PREFIX, **fields))
    driver.run()
    add(driver, request("b", PREFIX, **fields))
    assert parts(driver.step()) == {"b": (0, 12)}
    driver.run()
    add(driver, request("c", PREFIX))
    assert parts(driver.step()) == {"c": (8, 4)}


# Preemption


def test_the_newest_request_gives_way_and_comes_to_the_same_tokens() -> None:
    driver = drive(num_blocks=8)
    requests = [request("a", 8, max_tokens=14), request("b", 8, max_tokens=14)]
    add(driver, *requests)
    decisions = driver.run()
    assert {id for d in decisions for id in d.preempted_ids} == {"b"}
    assert driver.scheduler.stats().num_preemptions >= 1
    check_tokens(driver, *requests)


def test_a_preempted_request_resumes_from_what_is_still_cached() -> None:
    driver = drive(num_blocks=8)
    requests = [request("a", 8, max_tokens=10), request("b", 8, max_tokens=14)]
    add(driver, *requests)
    decisions = driver.run()
    introduced = [d for d in decisions if any(n.request_id == "b" for n in d.new_requests)]
    assert len(introduced) == 2
    start, _ = parts(introduced[1])["b"]
    assert start >= 8
    check_tokens(driver, *requests)
    assert driver.final("b").num_cached_tokens == 0  # of its first start


def test_preempted_requests_resume_before_those_that_have_not_started() -> None:
    driver = drive(num_blocks=8, max_num_seqs=2)
    requests = [request("a", 8, max_tokens=14), request("b", 8, max_tokens=14), request("c")]
    add(driver, *requests)
    introduced = [new.request_id for decision in driver.run() for new in decision.new_requests]
    assert introduced == ["a", "b", "b", "c"]
    check_tokens(driver, *requests)


def test_a_start_leaves_a_block_to_each_running_request() -> None:
    driver = drive(num_blocks=5)
    requests = [request("a", 4, max_tokens=4), request("b", 16)]
    add(driver, *requests)
    assert list(parts(driver.step())) == ["a"]  # 4 blocks are free, but "a" will need one
    driver.run()
    assert driver.scheduler.stats().num_preemptions == 0
    check_tokens(driver, *requests)


def test_prompt_logprobs_are_sent_once_although_a_preemption_computes_them_again() -> None:
    prompt = list(range(1, 17))
    first = request("a", 3, max_tokens=12)
    asked = request("b", prompt, max_tokens=3, sampling={"prompt_logprobs": 0})
    urgent = request("c", 8, priority=-1)
    driver = drive(num_blocks=7, max_num_batched_tokens=8, scheduling_policy="priority")
    add(driver, asked)
    driver.step()
    add(driver, urgent, first)
    decisions = driver.run()
    assert "b" in [id for d in decisions for id in d.preempted_ids]
    sent = [p.token_ids[0] for o in driver.outputs["b"] for p in o.prompt_logprobs]
    assert sent == prompt[1:]
    check_tokens(driver, first, asked, urgent)


def test_a_prompt_that_cannot_fit_into_the_cache_fails_with_both_numbers() -> None:
    driver = drive(num_blocks=4)
    neighbour = request("b")
    add(driver, request("a", 17), neighbour)
    driver.run()
    assert driver.final("a").finish_reason is FinishReason.ERROR
    error = driver.final("a").error or ""
    assert "17 tokens" in error
    assert "5 KV blocks" in error
    assert "4 blocks of 4 tokens" in error
    check_tokens(driver, neighbour)


def test_a_request_that_outgrows_the_cache_fails_and_the_others_go_on() -> None:
    driver = drive(num_blocks=4)
    neighbour = request("b", 3, max_tokens=9)
    add(driver, request("a", 3, max_tokens=None), neighbour)
    driver.run()
    assert driver.final("a").finish_reason is FinishReason.ERROR
    assert len(driver.tokens("a")) == 17 - 3
    check_tokens(driver, neighbour)


def test_a_request_too_big_for_the_cache_ends_even_if_nothing_else_runs() -> None:
    driver = drive(num_blocks=4)
    add(driver, request("a", 17))
    assert driver.run() == [SchedulerOutput(1, (), (), (), ())]
    assert driver.final("a").finish_reason is FinishReason.ERROR


# Priorities


def urgent_driver(**config: Any) -> SchedulerDriver:
    return drive(scheduling_policy="priority", **config)


def test_an_urgent_request_takes_the_seat_of_the_least_urgent() -> None:
    driver = urgent_driver(max_num_seqs=2)
    requests = [request("a", priority=1), request("b", priority=2), request("c", priority=1)]
    add(driver, *requests)
    assert list(parts(driver.step())) == ["a", "c"]
    urgent = request("d", priority=0)
    add(driver, urgent)
    decision = driver.step()
    assert list(parts(decision)) == ["d", "a"]
    assert decision.preempted_ids == ("c",)
    driver.run()
    check_tokens(driver, *requests, urgent)


def test_an_urgent_request_takes_the_blocks_of_less_urgent_ones() -> None:
    driver = urgent_driver(num_blocks=8)
    requests = [request("a", 8, priority=1), request("b", 12, priority=2)]
    add(driver, *requests)
    driver.step()
    driver.step()
    urgent = request("c", 16, priority=0)
    add(driver, urgent)
    decision = driver.step()
    assert decision.preempted_ids == ("b",)
    assert list(parts(decision)) == ["c", "a"]
    driver.run()
    check_tokens(driver, *requests, urgent)


def test_an_urgent_start_too_leaves_a_block_to_each_request_ahead_of_it() -> None:
    driver = urgent_driver(num_blocks=9)
    requests = [request("a", 8, priority=0), request("b", 7, priority=2)]
    add(driver, *requests)
    driver.step()
    urgent = request("c", 16, priority=1)  # 4 free blocks would do, but "a" will need one
    add(driver, urgent)
    decision = driver.step()
    assert (list(parts(decision)), decision.preempted_ids) == (["a", "c"], ("b",))
    driver.run()
    check_tokens(driver, *requests, urgent)


def test_nobody_is_preempted_for_a_request_that_could_not_start_even_so() -> None:
    driver = urgent_driver(num_blocks=8)
    requests = [request("a", 15, priority=0, max_tokens=2), request("b", 1, priority=2)]
    add(driver, *requests)
    driver.step()
    big = request("c", 24, priority=1)
    add(driver, big)
    assert list(parts(driver.step())) == ["a", "b"]
    driver.run()
    assert driver.scheduler.stats().num_preemptions == 0
    check_tokens(driver, *requests, big)


def test_equal_priority_does_not_preempt() -> None:
    driver = urgent_driver(max_num_seqs=1)
    requests = [request("a", priority=1), request("b", priority=1)]
    add(driver, *requests)
    driver.run()
    assert driver.scheduler.stats().num_preemptions == 0
    check_tokens(driver, *requests)


# Aborts


def test_a_waiting_request_can_be_aborted_and_ranks_never_hear_of_it() -> None:
    driver = drive(max_num_seqs=1)
    a = request("a")
    add(driver, a, request("b"))
    driver.step()
    driver.abort("b")
    assert driver.final("b").finish_reason is FinishReason.ABORT
    assert driver.final("b").first_scheduled_time_s is None
    decisions = driver.run()
    assert all("b" not in decision.finished_ids for decision in decisions)
    check_tokens(driver, a)


def test_a_request_can_be_aborted_in_the_middle_of_its_prompt() -> None:
    driver = drive()
    add(driver, request("a", 40))
    driver.step()
    driver.abort("a")
    assert driver.scheduler.stats().num_used_blocks == 0
    assert not driver.scheduler.has_work
    b = request("b")
    add(driver, b)
    assert driver.step().finished_ids == ("a",)
    driver.run()
    check_tokens(driver, b)


def test_blocks_of_a_request_aborted_while_its_step_is_computed_are_kept_until_then() -> None:
    driver = drive()
    add(driver, request("a", 8), request("b"))
    decision = driver.schedule()
    used = driver.scheduler.stats().num_used_blocks
    driver.abort("a")
    assert driver.scheduler.stats().num_used_blocks == used
    driver.finish(decision)
    assert driver.scheduler.stats().num_used_blocks == 1
    assert [o.finish_reason for o in driver.outputs["a"]] == [FinishReason.ABORT]
    driver.run()


def test_aborting_what_is_not_live_does_nothing() -> None:
    driver = drive()
    add(driver, request("a"))
    driver.run()
    assert driver.scheduler.abort("a") is None
    assert driver.scheduler.abort("never") is None


def test_abort_all_ends_everything_once() -> None:
    driver = drive(max_num_seqs=2, num_blocks=8)
    add(driver, *(request(name) for name in "abc"), request("d", output_token_ids=(1, 2, 3, 4)))
    driver.step()
    add(driver, request("e", output_token_ids=(1, 2, 3, 4)))
    driver.collect(driver.scheduler.abort_all())
    assert not driver.scheduler.has_work
    assert driver.scheduler.stats().num_used_blocks == 0
    reasons = {name: driver.final(name).finish_reason for name in "abcde"}
    assert reasons == {
        **dict.fromkeys("abc", FinishReason.ABORT),
        **dict.fromkeys("de", FinishReason.LENGTH),
    }
    assert driver.scheduler.abort_all() == []


# Failures


def test_a_failed_request_ends_alone() -> None:
    driver = drive(fail_at={"a": 5})
    neighbour = request("b")
    add(driver, request("a", 3), neighbour)
    driver.run()
    assert driver.final("a").finish_reason is FinishReason.ERROR
    assert "not finite" in (driver.final("a").error or "")
    check_tokens(driver, neighbour)


@pytest.mark.parametrize("aborted", [False, True])
def test_what_a_failed_request_computed_is_not_used_again(aborted: bool) -> None:
    driver = drive(fail_at={"a": 2})
    add(driver, request("a", PREFIX))
    decision = driver.schedule()
    if aborted:
        driver.abort("a")
    driver.finish(decision)
    assert driver.scheduler.stats().num_cached_blocks == 0
    again = request("b", PREFIX)
    add(driver, again)
    driver.run()
    check_tokens(driver, again)


def test_a_request_that_shares_spoilt_blocks_fails_too_and_leaves_nothing_behind() -> None:
    driver = drive(fail_at={"a": 2}, max_num_batched_tokens=64)
    add(driver, request("a", PREFIX), request("b", PREFIX))
    driver.run()
    assert driver.final("b").finish_reason is FinishReason.ERROR
    assert driver.scheduler.stats().num_cached_blocks == 0


# The contract with the caller


def test_an_idle_scheduler_schedules_nothing() -> None:
    driver = drive()
    assert not driver.scheduler.has_work
    assert driver.step().scheduled == ()


def test_what_ranks_must_hear_is_not_lost_in_an_empty_step() -> None:
    driver = drive()
    add(driver, request("a"))
    driver.step()
    driver.abort("a")
    assert driver.step().finished_ids == ()
    add(driver, request("b"))
    assert driver.step().finished_ids == ("a",)


def test_each_decision_needs_its_own_result() -> None:
    driver = drive()
    add(driver, request("a"))
    decision = driver.schedule()
    with pytest.raises(AssertionError, match="a result must be seen"):
        driver.scheduler.schedule()
    with pytest.raises(AssertionError):
        driver.scheduler.update(decision, ModelRunnerOutput(decision.step + 1, ()))


@pytest.mark.parametrize(
    ("fields", "complaint"), [({}, "nothing was sampled"), ({"pooling": "last"}, "not pooled")]
)
def test_an_executor_that_returns_nothing_is_caught(fields: dict[str, Any], complaint: str) -> None:
    driver = drive()
    add(driver, request("a", **fields))
    decision = driver.schedule()
    empty = ModelRunnerOutput(decision.step, (StepResult("a"),))
    with pytest.raises(AssertionError, match=complaint):
        driver.scheduler.update(decision, empty)


def test_stats_count_what_is_there_and_what_was_done() -> None:
    driver = drive(num_blocks=16, max_num_seqs=2)
    add(driver, request("a", 8), request("b", 5), request("c", 4))
    driver.step()
    stats = driver.scheduler.stats()
    assert (stats.num_running, stats.num_waiting) == (2, 1)
    assert (stats.num_blocks, stats.num_used_blocks, stats.num_cached_blocks) == (16, 4, 0)
    driver.run()
    stats = driver.scheduler.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_used_blocks) == (0, 0, 0)
    assert (stats.prompt_tokens, stats.generation_tokens) == (8 + 5 + 4, 3 * 4)
    assert stats.num_cached_blocks == 2 + 2 + 1  # full ones of 11, 8 and 7 computed tokens
