"""Journal: a call cut into lives anywhere tells its caller what one life would have."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.journal import Journal
from novacron.records.output import RequestOutput, TextLogprobs, TokenLogprob
from novacron.records.request import FinishReason, Request, SamplingParams

NUM_PROMPT_TOKENS = 6


def request(name: str, num_tokens: int, **sampling: object) -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=tuple(range(NUM_PROMPT_TOKENS)),
        sampling=SamplingParams(seed=1, max_tokens=num_tokens, **sampling),  # type: ignore[arg-type]
        arrival_time_s=0.0,
    )


def logprob(token_id: int) -> TextLogprobs:
    return TextLogprobs(TokenLogprob(token_id, str(token_id), -1.0, b""), ())


def life(requests: tuple[Request, ...], cached: int, time_s: float) -> list[RequestOutput]:
    """What an engine says of these requests: the prompt's logprobs in two parts, then tokens."""
    outputs = []
    for index, one in enumerate(requests):
        wants_logprobs = one.sampling.prompt_logprobs is not None
        parts = (
            [tuple(map(logprob, part)) for part in ((1, 2), (3, 4, 5))] if wants_logprobs else []
        )
        done = len(one.output_token_ids)
        assert one.sampling.max_tokens is not None
        for num in range(done - len(parts), one.sampling.max_tokens):
            outputs.append(
                RequestOutput(
                    request_id=one.request_id,
                    index=index,
                    token_ids=(num,) if num >= done else (),
                    prompt_logprobs=parts[num - done] if num < done else (),
                    finish_reason=FinishReason.LENGTH
                    if num + 1 == one.sampling.max_tokens
                    else None,
                    num_prompt_tokens=len(one.prompt_token_ids),
                    num_output_tokens=max(0, num + 1),
                    num_cached_tokens=cached,
                    first_scheduled_time_s=time_s,
                )
            )
    return outputs


@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=3),
    st.lists(st.integers(0, 8), max_size=4),
)
def test_a_call_in_many_lives_is_told_like_one(
    wanted: list[tuple[int, bool]], cuts: list[int]
) -> None:
    requests = tuple(
        request(f"r{place}", num, prompt_logprobs=0 if with_logprobs else None)
        for place, (num, with_logprobs) in enumerate(wanted)
    )
    journal = Journal(requests)
    heard: list[RequestOutput] = []
    for number, cut in enumerate([*cuts, 10**6]):
        if journal.has_ended:
            break
        remaining = journal.remaining()
        heard += map(journal.record, life(remaining, min(number, 5), 1.0 + number)[:cut])
    assert journal.has_ended
    assert journal.num_tokens == {}
    for place, one in enumerate(requests):
        own = [output for output in heard if output.index == place]
        assert {output.request_id for output in own} == {one.request_id}
        tokens = sum((output.token_ids for output in own), ())
        assert tokens == tuple(range(wanted[place][0]))
        logprobs = sum((output.prompt_logprobs for output in own), ())
        assert logprobs == (tuple(map(logprob, range(1, 6))) if wanted[place][1] else ())
        assert [output.finished for output in own] == [False] * (len(own) - 1) + [True]
        assert len({output.num_cached_tokens for output in own}) == 1
        assert len({output.first_scheduled_time_s for output in own}) == 1


def test_later_lives_have_ids_of_their_own_and_the_tokens_so_far() -> None:
    journal = Journal((request("a", 9), request("b", 1)))
    first = journal.remaining()
    assert [one.request_id for one in first] == ["a", "b"]
    assert journal.id_in_engine("b") == "b"
    for output in life(first, 0, 0.0)[:3]:
        journal.record(output)
    journal.record(life(first, 0, 0.0)[-1])
    [second] = journal.remaining()
    assert (second.request_id, second.output_token_ids) == ("a.2", (0, 1, 2))
    assert journal.id_in_engine("a") == "a.2"
    assert journal.id_in_engine("b") is None
    assert journal.abort("b") is None
    last = journal.abort("a")
    assert last is not None
    assert (last.finish_reason, last.num_output_tokens) == (FinishReason.ABORT, 3)
    assert journal.has_ended


def test_places_hold_where_a_request_was_aborted_before_the_first_life() -> None:
    journal = Journal((request("a", 2), request("b", 2), request("c", 2)))
    assert journal.abort("b") is not None
    heard = [journal.record(output) for output in life(journal.remaining(), 0, 0.0)]
    assert [(output.request_id, output.index) for output in heard] == [
        ("a", 0), ("a", 0), ("c", 2), ("c", 2),
    ]  # fmt: skip
    assert journal.has_ended


def test_a_request_that_goes_on_is_still_its_tenants() -> None:
    mine = request("r", 4)
    mine = msgspec.structs.replace(mine, tenant="t", weight=2.0, priority=-10, ttft_slo_s=0.5)
    journal = Journal((mine,))
    for output in life(journal.remaining(), 0, 1.0)[:2]:
        journal.record(output)
    [again] = journal.remaining()
    assert (again.tenant, again.weight, again.priority, again.ttft_slo_s) == ("t", 2.0, -10, 0.5)
    assert again.output_token_ids == (0, 1)
