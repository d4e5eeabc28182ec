"""The fake must notice what a real rank could not survive; otherwise it proves nothing."""

from __future__ import annotations

import pytest

from novacron.records.request import Pooling, SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.testing.clock import FakeClock
from novacron.testing.fake_executor import FakeExecutor, fake_spec, hashed_token

SPEC = fake_spec(num_blocks=8, block_size=4, vocab_size=50, max_model_len=20)


def new(
    request_id: str,
    token_ids: tuple[int, ...],
    *,
    pooling: Pooling | None = None,
    **sampling: object,
) -> NewRequest:
    params = SamplingParams(seed=0, **sampling)
    return NewRequest(request_id, token_ids, len(token_ids), params, pooling)


def step(
    number: int,
    *parts: ScheduledTokens,
    introduce: tuple[NewRequest, ...] = (),
    preempted: tuple[str, ...] = (),
    finished: tuple[str, ...] = (),
    masks: dict[str, tuple[bytes, ...]] | None = None,
) -> SchedulerOutput:
    return SchedulerOutput(number, introduce, parts, preempted, finished, masks or {})


def part(request_id: str, start: int, num_tokens: int, *block_ids: int) -> ScheduledTokens:
    return ScheduledTokens(request_id, start, num_tokens, block_ids)


PROMPT = (1, 2, 3, 4, 5, 6)
START_A = step(1, part("a", 0, 6, 0, 1), introduce=(new("a", PROMPT),))


def started() -> FakeExecutor:
    """An executor that has computed the prompt of "a" in blocks 0 and 1."""
    executor = FakeExecutor(SPEC)
    executor.execute(START_A)
    return executor


def test_tokens_are_the_same_whole_in_chunks_or_from_a_shared_prefix() -> None:
    expected = (hashed_token(PROMPT) % 50,)
    executor = FakeExecutor(SPEC)
    (whole,) = executor.execute(START_A).results
    chunk = step(2, part("b", 0, 3, 2), introduce=(new("b", PROMPT),))
    assert executor.execute(chunk).results[0].token_ids == ()
    (last,) = executor.execute(step(3, part("b", 3, 3, 3))).results
    shared = step(4, part("c", 4, 2, 0, 4), introduce=(new("c", PROMPT),))
    (cached,) = executor.execute(shared).results
    assert whole.token_ids == last.token_ids == cached.token_ids == expected
    assert executor.reads == {("a", "a"), ("b", "b"), ("c", "a"), ("c", "c")}


def test_a_newcomer_may_share_a_block_that_the_same_step_fills() -> None:
    executor = FakeExecutor(SPEC)
    decision = step(
        1,
        part("a", 0, 6, 0, 1),
        part("b", 4, 2, 0, 2),
        introduce=(new("a", PROMPT), new("b", PROMPT)),
    )
    first, second = executor.execute(decision).results
    assert first.token_ids == second.token_ids


@pytest.mark.parametrize(
    ("decision", "complaint"),
    [
        (step(1, part("a", 6, 1)), "steps must grow"),
        (step(2, part("b", 0, 1, 2)), "not introduced"),
        (step(2, part("a", 6, 1), introduce=(new("a", PROMPT),)), "introduced twice"),
        (step(2, introduce=(new("b", PROMPT),)), "new but not scheduled"),
        (step(2, part("a", 6, 1), part("a", 6, 1)), "scheduled twice"),
        (step(2, part("a", 5, 1)), "computes again"),
        (step(2, part("a", 7, 1)), "leaves a gap"),
        (step(2, part("a", 6, 2)), "past the known tokens"),
        (step(2, part("a", 6, 0)), "empty"),
        (step(2, part("b", 0, 6, 2), introduce=(new("b", PROMPT),)), "not covered"),
        (step(2, part("b", 0, 6, 2, 2), introduce=(new("b", PROMPT),)), "holds a block twice"),
        (step(2, part("b", 0, 6, 0, 2), introduce=(new("b", PROMPT),)), "shares"),
        (step(2, part("b", 4, 2, 1, 2), introduce=(new("b", PROMPT),)), "should be"),
        (step(2, part("b", 4, 2, 3, 2), introduce=(new("b", PROMPT),)), "unwritten"),
        (step(2, part("b", 2, 4, 0, 2), introduce=(new("b", PROMPT),)), "inside a block"),
        (step(2, finished=("b",)), "not held"),
        (step(2, finished=("a",), preempted=("a",)), "dropped twice"),
        (
            step(2, part("b", 4, 2, 0, 2), introduce=(new("b", PROMPT, pooling="mean"),)),
            "cannot be pooled",
        ),
        (
            step(
                2,
                part("b", 0, 6, 2, 3),
                part("c", 0, 6, 2, 4),
                introduce=(new("b", PROMPT), new("c", PROMPT)),
            ),
            "another one writes",
        ),
    ],
)
def test_a_broken_contract_is_caught(decision: SchedulerOutput, complaint: str) -> None:
    executor = started()
    with pytest.raises(AssertionError, match=complaint):
        executor.execute(decision)


def test_a_block_that_was_given_away_too_early_is_caught() -> None:
    executor = started()
    thief = step(2, part("b", 0, 4, 0), introduce=(new("b", (9,) * 6),), finished=())
    with pytest.raises(AssertionError, match="shares"):
        executor.execute(thief)


def test_an_id_may_be_dropped_and_new_in_one_step() -> None:
    executor = started()
    again = step(2, part("a", 0, 6, 0, 1), introduce=(new("a", PROMPT),), preempted=("a",))
    assert executor.execute(again).results[0].token_ids


def test_prompt_logprobs_are_those_of_the_positions_that_a_part_predicts() -> None:
    executor = FakeExecutor(SPEC)
    asked = new("a", PROMPT, prompt_logprobs=0, logprobs=0)
    (first,) = executor.execute(step(1, part("a", 0, 4, 0), introduce=(asked,))).results
    (last,) = executor.execute(step(2, part("a", 4, 2, 1))).results
    assert [p.token_ids[0] for p in first.prompt_logprobs] == [2, 3, 4, 5]
    assert [p.token_ids[0] for p in last.prompt_logprobs] == [6]
    assert last.logprobs[0].token_ids == last.token_ids


def test_pooling_gives_an_embedding_and_no_token() -> None:
    decision = step(1, part("a", 0, 6, 0, 1), introduce=(new("a", PROMPT, pooling="last"),))
    (result,) = FakeExecutor(SPEC).execute(decision).results
    assert (result.embedding is not None, result.token_ids) == (True, ())


def test_masked_tokens_are_never_chosen() -> None:
    mask = (1 << 7 | 1 << 9).to_bytes(8, "little")
    executor = started()
    results = executor.execute(step(2, part("a", 6, 1), masks={"a": (mask,)})).results
    assert set(results[0].token_ids) <= {7, 9}


def test_several_tokens_in_a_step_are_those_of_several_steps() -> None:
    executor = FakeExecutor(SPEC, tokens_per_step=3)
    (result,) = executor.execute(START_A).results
    one_by_one = list(PROMPT)
    for _ in range(3):
        one_by_one.append(hashed_token(one_by_one) % 50)
    assert list(result.token_ids) == one_by_one[6:]


def test_injected_failure_ends_the_request_and_spoils_what_it_wrote() -> None:
    executor = FakeExecutor(SPEC, fail_at={"a": 2})
    assert executor.execute(START_A).results[0].error is not None
    heir = step(2, part("b", 4, 2, 0, 2), introduce=(new("b", PROMPT),), finished=("a",))
    assert executor.execute(heir).results[0].error is not None
    other = step(3, part("c", 0, 6, 3, 4), introduce=(new("c", PROMPT),))
    assert executor.execute(other).results[0].error is None


def test_injected_exception_comes_in_its_step() -> None:
    executor = FakeExecutor(SPEC, raise_at={2: RuntimeError("rank 0 is gone")})
    executor.execute(START_A)
    with pytest.raises(RuntimeError, match="rank 0 is gone"):
        executor.execute(step(2, part("a", 6, 1)))


def test_latency_is_per_step_and_per_token() -> None:
    clock = FakeClock()
    executor = FakeExecutor(SPEC, step_latency_s=1.0, token_latency_s=0.5, sleep=clock.advance)
    executor.execute(START_A)
    assert clock() == pytest.approx(1000.0 + 1.0 + 6 * 0.5)


def test_no_step_after_shutdown() -> None:
    executor = started()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(AssertionError, match="after shutdown"):
        executor.execute(step(2, part("a", 6, 1)))


def test_drafts_are_verified_and_wrong_ones_leave_no_trace() -> None:
    right = []
    for _ in range(3):
        right.append(hashed_token([*PROMPT, *right]) % 50)
    executor = FakeExecutor(SPEC)
    drafts = (right[0], right[1] + 1)
    decision = step(1, ScheduledTokens("a", 0, 8, (0, 1), drafts), introduce=(new("a", PROMPT),))
    assert executor.execute(decision).results[0].token_ids == tuple(right[:2])
    with pytest.raises(AssertionError, match="leaves a gap"):
        executor.execute(step(2, part("a", 8, 1)))
    assert executor.execute(step(3, part("a", 7, 1))).results[0].token_ids == (right[2],)


def test_drafts_follow_the_last_known_token_only() -> None:
    decision = step(1, ScheduledTokens("a", 0, 4, (0,), (9,)), introduce=(new("a", PROMPT),))
    with pytest.raises(AssertionError, match="from the middle"):
        FakeExecutor(SPEC).execute(decision)
