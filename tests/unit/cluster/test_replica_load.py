from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.cluster.replica_load import ReplicaLoad
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams


def request(request_id: str, num_tokens: int) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=tuple(range(num_tokens)),
        sampling=SamplingParams(),
        arrival_time_s=0.0,
    )


def output(request_id: str, *, is_last: bool = False) -> RequestOutput:
    reason = FinishReason.STOP if is_last else None
    return RequestOutput(request_id=request_id, token_ids=(1,), finish_reason=reason)


def test_prompts_count_until_a_token_comes_and_requests_until_they_end() -> None:
    load = ReplicaLoad()
    call = load.add((request("a", 100), request("b", 100)), cached_tokens=64)
    assert (load.num_live, load.queued_tokens) == (2, 36)  # copies share the rest
    call.see(output("a"))
    assert (load.num_live, load.queued_tokens) == (2, 0)
    call.see(output("a", is_last=True))
    call.see(output("stranger", is_last=True))
    assert load.num_live == 1
    call.end()
    call.end()
    assert (load.num_live, load.queued_tokens) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=40))
def test_whatever_happens_nothing_stays_counted(events: list[tuple[int, bool, bool]]) -> None:
    load = ReplicaLoad()
    calls = [load.add((request(str(place), 10 * place + 1),), place) for place in range(6)]
    for place, is_last, ends in events:
        if ends:
            calls[place].end()
        else:
            calls[place].see(output(str(place), is_last=is_last))
        assert load.num_live >= 0
        assert load.queued_tokens >= 0
    for call in calls:
        call.end()
    assert (load.num_live, load.queued_tokens) == (0, 0)
