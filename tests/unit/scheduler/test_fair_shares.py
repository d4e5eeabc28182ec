"""Fair shares over time: who gets how much, and waits how long. Virtual time, nothing computed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from novacron.config.scheduler import SchedulerConfig
from novacron.testing.shared_load import SharedLoad, Tenant, jain


def config(policy: str = "fair", **fields: Any) -> SchedulerConfig:
    limits = {"max_num_seqs": 16, "max_num_batched_tokens": 512, **fields}
    return SchedulerConfig(scheduling_policy=policy, **limits)  # type: ignore[arg-type]


def p99_ms(times_s: list[float]) -> float:
    assert times_s, "nothing came"
    return 1000 * sorted(times_s)[min(len(times_s) - 1, int(0.99 * len(times_s)))]


shapes = st.builds(
    dict,
    prompt_tokens=st.integers(1, 300),
    output_tokens=st.integers(1, 60),
)


@given(
    first=shapes,
    second=shapes,
    weights=st.tuples(st.sampled_from([1.0, 2.0, 0.5]), st.sampled_from([1.0, 4.0])),
    num_seats=st.sampled_from([1, 3, 16]),
    chunked=st.booleans(),
)
@settings(max_examples=40)
def test_backlogged_tenants_never_drift_apart(
    first: dict[str, int],
    second: dict[str, int],
    weights: tuple[float, float],
    num_seats: int,
    chunked: bool,
) -> None:
    """What each has been served over its weight differs by what is running, whatever the time: the
    prompts of one step, and the outputs of all seats."""
    tenants = [
        Tenant(name, 2 * num_seats, weight=weight, **shape)
        for name, weight, shape in zip("ab", weights, (first, second), strict=True)
    ]
    load = SharedLoad(
        tenants, config(max_num_seqs=num_seats, enable_chunked_prefill=chunked), num_blocks=2048
    )
    a, b = tenants
    most_output = max(first["output_tokens"], second["output_tokens"], 32)
    most_prompt = max(first["prompt_tokens"], second["prompt_tokens"])
    bound = 2 * (most_prompt + 2 * num_seats * most_output) / min(weights)
    for _ in range(150):
        load.step()
        assert abs(a.cost / a.weight - b.cost / b.weight) <= bound


@pytest.mark.parametrize(("policy", "least", "most"), [("fair", 0.999, 1), ("fcfs", 0, 0.4)])
def test_one_that_sends_twenty_times_as_much_gets_no_more(
    policy: str, least: float, most: float
) -> None:
    tenants = [Tenant("loud", 160, 128, 64)] + [Tenant(f"t{i}", 8, 128, 64) for i in range(3)]
    SharedLoad(tenants, config(policy)).run(4)
    assert least <= jain([tenant.cost for tenant in tenants]) <= most


def test_shares_are_in_proportion_to_weights() -> None:
    tenants = [Tenant(f"t{weight}", 40, 64, 32, weight=weight) for weight in (1.0, 2.0, 4.0)]
    SharedLoad(tenants, config()).run(8)
    costs = [tenant.cost / tenant.weight for tenant in tenants]
    assert max(costs) < 1.1 * min(costs)


def test_a_quiet_tenant_hardly_notices_a_loud_one() -> None:
    """Though that has more requests than there are seats, and long prompts and answers."""
    seats = config(max_num_seqs=64, max_num_batched_tokens=2048)

    def quiet() -> Tenant:
        return Tenant("quiet", 1, 1024, 32, pause_s=0.05)

    alone, beside, behind = quiet(), quiet(), quiet()
    SharedLoad([alone], seats).run(3)
    SharedLoad([beside, Tenant("loud", 80, 1024, 256)], seats).run(3)
    fcfs = config("fcfs", max_num_seqs=64, max_num_batched_tokens=2048)
    SharedLoad([behind, Tenant("loud", 80, 1024, 256)], fcfs).run(20)
    # The first one comes when nobody knows of it yet, beside a step of the loud one's.
    assert p99_ms(beside.ttfts_s[1:]) <= 1.5 * p99_ms(alone.ttfts_s)
    assert p99_ms(behind.ttfts_s[1:] or [100.0]) > 10 * p99_ms(alone.ttfts_s)


def test_high_priority_hardly_notices_a_flood_of_low() -> None:
    seats = config(max_num_seqs=64, max_num_batched_tokens=2048)

    def high() -> Tenant:
        return Tenant("one", 1, 1024, 32, priority=-10, pause_s=0.05)

    alone, beside = high(), high()
    SharedLoad([alone], seats).run(3)
    flood = Tenant("one", 80, 1024, 256, priority=10)  # the same tenant
    SharedLoad([beside, flood], seats).run(3)
    assert p99_ms(beside.ttfts_s[1:]) <= 1.3 * p99_ms(alone.ttfts_s)
    assert flood.num_ended > 0


def test_what_is_computed_in_small_parts_for_others_loses_little() -> None:
    seats = config(max_num_seqs=64, max_num_batched_tokens=2048)
    alone, beside = Tenant("loud", 80, 1024, 64), Tenant("loud", 80, 1024, 64)
    quiet = Tenant("quiet", 1, 16, 1, pause_s=1.0)
    SharedLoad([alone], seats).run(3)
    SharedLoad([beside, quiet], seats).run(3)
    assert beside.tokens > 0.8 * alone.tokens


def test_a_tenant_that_comes_back_gets_its_share_and_no_more() -> None:
    """While it was away, it has saved nothing up; and who was ahead does not pay for that."""
    early, late = Tenant("early", 40, 64, 32), Tenant("late", 40, 64, 32)
    load = SharedLoad([early], config())
    load.run(3)
    before = early.cost
    for _ in range(40):
        load.send(late, load.clock())
    load.run(3)
    assert early.cost - before == pytest.approx(late.cost, rel=0.1)


def test_who_leaves_ahead_of_his_share_is_still_ahead_when_he_comes_back() -> None:
    """Else a tenant could start anew after every burst."""
    steady = Tenant("steady", 40, 64, 32)
    burst = Tenant("burst", 0, 2000, 1)
    load = SharedLoad([steady], config(max_num_seqs=4))
    load.run(1)
    costs_before = steady.cost
    for _ in range(30):
        load.send(burst, load.clock())
        while any(one.tenant is burst for one in load.running.values()):
            load.step()
        load._due = [due for due in load._due if due[1] is not burst]
    assert burst.cost == pytest.approx(steady.cost - costs_before, rel=0.15)


@given(
    tenants=st.lists(
        st.builds(
            Tenant,
            st.sampled_from("abcd"),
            num_streams=st.integers(1, 12),
            prompt_tokens=st.integers(1, 200),
            output_tokens=st.integers(1, 40),
            priority=st.sampled_from([-20, -10, 0, 0, 10, 1_000_000]),
            pause_s=st.sampled_from([0.0, 0.0, 0.01]),
        ),
        min_size=1,
        max_size=5,
    ),
    num_blocks=st.integers(20, 200),
    num_seats=st.integers(1, 8),
)
@settings(max_examples=40)
def test_it_is_never_idle_while_somebody_waits_and_nobody_waits_for_ever(
    tenants: list[Tenant], num_blocks: int, num_seats: int
) -> None:
    ageing_s = 0.05
    load = SharedLoad(
        tenants,
        config(max_num_seqs=num_seats, priority_ageing=ageing_s, max_num_batched_tokens=64),
        num_blocks=num_blocks,
    )
    begin_s, num_streams = load.clock(), sum(tenant.num_streams for tenant in tenants)
    while not all(tenant.num_ended for tenant in tenants):
        assert load.clock() - begin_s < 20 * ageing_s * num_streams, "somebody starved"
        is_busy = bool(load.running)
        decision = load.step()
        assert decision.scheduled or not is_busy, "idle beside work"


def test_without_ageing_the_less_urgent_starve() -> None:
    """So the test above is one."""
    urgent, low = Tenant("a", 8, 64, 16), Tenant("b", 1, 64, 16, priority=10)
    SharedLoad([urgent, low], config(max_num_seqs=4, priority_ageing=0)).run(10)
    assert low.num_ended == 0
    urgent, low = Tenant("a", 8, 64, 16), Tenant("b", 1, 64, 16, priority=10)
    SharedLoad([urgent, low], config(max_num_seqs=4, priority_ageing=1)).run(10)
    assert 5 <= low.num_ended <= 12, "one for each second"
    assert urgent.cost > 10 * low.cost


@given(
    sizes=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 12)), min_size=1, max_size=20),
    num_blocks=st.integers(10, 60),
    num_seats=st.integers(1, 6),
)
@settings(max_examples=40)
def test_with_one_tenant_and_priority_it_is_first_come_first_served(
    sizes: list[tuple[int, int]], num_blocks: int, num_seats: int
) -> None:
    """Decision by decision: it costs them nothing."""
    assume(max(sum(size) for size in sizes) <= 16 * num_blocks)
    decisions = []
    for policy in ("fair", "fcfs"):
        load = SharedLoad(
            [], config(policy, max_num_seqs=num_seats, max_num_batched_tokens=64),
            num_blocks=num_blocks,
        )  # fmt: skip
        taken = []
        for number, (prompt_tokens, output_tokens) in enumerate(sizes):
            load.send(Tenant("one", 0, prompt_tokens, output_tokens), load.clock())
            taken += [load.step()] if number % 3 else []
        while load.scheduler.has_work:
            load._due = []
            taken.append(load.step())
        decisions.append(taken)
    assert decisions[0] == decisions[1]
