"""The choice of a replica: what must hold whatever the replicas are doing."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from novacron.cluster.latency import Candidate, Demand, Speed, predict
from novacron.cluster.router import HOME_SHARE, choose

SPEED = Speed(prefill_s=1e-4, row_s=1e-3, step_s=1e-2)


def candidate(name: str = "a", **changes: object) -> Candidate:
    one = Candidate(
        replica_id=name,
        is_ready=True,
        num_live=0,
        queued_tokens=0,
        max_num_seqs=8,
        free_tokens=10_000,
        cached_tokens=0,
        speed=SPEED,
    )
    return msgspec.structs.replace(one, **changes)


speeds = st.builds(Speed, st.floats(1e-7, 1e-2), st.floats(1e-7, 1e-2), st.floats(1e-7, 1e-1))


@st.composite
def fleets(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(1, 8))
    return [
        Candidate(
            replica_id=f"replica-{place}",
            is_ready=draw(st.booleans()),
            num_live=draw(st.integers(0, 40)),
            queued_tokens=draw(st.integers(0, 5000)),
            max_num_seqs=draw(st.integers(1, 16)),
            free_tokens=draw(st.integers(0, 5000)),
            cached_tokens=draw(st.integers(0, 1000)),
            speed=draw(speeds),
            turn=draw(st.integers(0, 100)),
        )
        for place in range(count)
    ]


demands = st.builds(
    Demand,
    num_tokens=st.integers(1, 4000),
    num_requests=st.integers(1, 4),
    output_tokens=st.floats(1, 500),
    home=st.sampled_from(["", "replica-0", "replica-1", "replica-7", "gone"]),
)


@given(fleets(), demands)
def test_only_a_ready_replica_is_chosen_and_others_are_told(
    fleet: list[Candidate], demand: Demand
) -> None:
    ready = {one.replica_id for one in fleet if one.is_ready}
    decision = choose(fleet, demand)
    if decision is None:
        assert not ready
        return
    assert decision.target in ready
    told = [one.replica_id for one in decision.alternatives]
    assert len(told) == min(3, len(ready) - 1)
    assert set(told) <= ready - {decision.target}
    assert decision.first_token_s <= decision.latency_s


@given(fleets(), demands)
def test_the_chosen_one_is_the_quickest_but_for_the_patience_of_a_conversation(
    fleet: list[Candidate], demand: Demand
) -> None:
    decision = choose(fleet, demand)
    if decision is None:
        return
    predicted = {one.replica_id: predict(one, demand).latency_s for one in fleet if one.is_ready}
    [chosen] = [one for one in fleet if one.replica_id == decision.target]
    patience_s = HOME_SHARE * demand.num_tokens * chosen.speed.prefill_s
    if decision.target != demand.home:
        patience_s = 0.0
    assert predicted[decision.target] <= min(predicted.values()) + patience_s
    assert decision.latency_s == predicted[decision.target]


@given(fleets(), demands, st.data())
def test_more_load_never_attracts(
    fleet: list[Candidate], demand: Demand, data: st.DataObject
) -> None:
    """A replica that is not chosen is not chosen with more to do, or less of the prompt either."""
    decision = choose(fleet, demand)
    if decision is None:
        return
    place = data.draw(st.integers(0, len(fleet) - 1))
    one = fleet[place]
    if one.replica_id == decision.target:
        return
    worse = msgspec.structs.replace(
        one,
        num_live=one.num_live + data.draw(st.integers(0, 9)),
        queued_tokens=one.queued_tokens + data.draw(st.integers(0, 900)),
        free_tokens=max(0, one.free_tokens - data.draw(st.integers(0, 900))),
        cached_tokens=max(0, one.cached_tokens - data.draw(st.integers(0, 900))),
    )
    assert predict(worse, demand).latency_s >= predict(one, demand).latency_s
    again = choose([*fleet[:place], worse, *fleet[place + 1 :]], demand)
    assert again is not None
    assert again.target == decision.target


@given(st.integers(1, 9), st.integers(1, 60), speeds)
def test_equal_replicas_get_equal_shares(num_replicas: int, num_calls: int, speed: Speed) -> None:
    live: Counter[str] = Counter()
    names = [f"replica-{place}" for place in range(num_replicas)]
    for _ in range(num_calls):
        fleet = [candidate(name, num_live=live[name], speed=speed) for name in names]
        decision = choose(fleet, Demand(num_tokens=100, output_tokens=50))
        assert decision is not None
        live[decision.target] += 1
        shares = [live[name] for name in names]
        assert max(shares) - min(shares) <= 1


def test_idle_replicas_take_turns() -> None:
    turns = dict.fromkeys("abc", 0)
    chosen = []
    for turn in range(1, 7):
        decision = choose([candidate(n, turn=t) for n, t in turns.items()], Demand(num_tokens=9))
        assert decision is not None
        turns[decision.target] = turn
        chosen.append(decision.target)
    assert chosen == [*"abcabc"]


def test_a_prefix_draws_its_requests_until_others_would_be_quicker() -> None:
    """800 cached tokens save 80 ms; each request beside it costs 32 ms, so three are too many."""
    demand = Demand(num_tokens=1000, output_tokens=32)
    reasons = []
    for num_live in range(5):
        has_it = candidate("has it", cached_tokens=800, num_live=num_live)
        decision = choose([candidate("idle"), has_it], demand)
        assert decision is not None
        reasons.append((decision.target, decision.why))
    assert reasons[:2] == [("has it", "prefix")] * 2
    assert reasons[3:] == [("idle", "spill")] * 2


def test_a_conversation_stays_within_patience() -> None:
    """1,000 tokens take 100 ms: half of that is what waiting for its own replica may cost."""
    demand = Demand(num_tokens=1000, output_tokens=10, home="home")
    stays = choose([candidate("idle"), candidate("home", queued_tokens=400)], demand)
    goes = choose([candidate("idle"), candidate("home", queued_tokens=600)], demand)
    assert stays is not None
    assert goes is not None
    assert (stays.target, stays.why) == ("home", "session")
    assert (goes.target, goes.why) == ("idle", "load")


def test_a_full_batch_and_a_full_cache_are_waited_for() -> None:
    demand = Demand(num_tokens=100, output_tokens=100)
    free = predict(candidate(num_live=7), demand)
    assert predict(candidate(num_live=8), demand).first_token_s > free.first_token_s + 0.1
    full = predict(candidate(num_live=7, free_tokens=0), demand)
    assert full.first_token_s > free.first_token_s + 1.0


def test_the_only_one_is_said_to_be_so() -> None:
    decision = choose([candidate("a"), candidate("b", is_ready=False)], Demand(num_tokens=5))
    assert decision is not None
    assert (decision.target, decision.why, decision.alternatives) == ("a", "only", ())
