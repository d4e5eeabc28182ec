"""Whatever coordinators do, and whatever their clocks say: one has a duty at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.coordination.lease import Fence, Lease, decide, released

TTL_MS = 10
NAMES = st.sampled_from("abc")
# who wants it, after how long, and whether he gives it back instead
HISTORIES = st.lists(st.tuples(NAMES, st.integers(0, 2 * TTL_MS), st.booleans()), max_size=40)


def test_a_free_duty_is_taken_and_a_held_one_is_not() -> None:
    lease = decide(Lease("d"), "a", 100, TTL_MS)
    assert lease == Lease("d", "a", 1, 110)
    assert decide(lease, "b", 109, TTL_MS) is None
    assert decide(lease, "b", 110, TTL_MS) == Lease("d", "b", 2, 120)


def test_a_lease_that_ran_out_comes_back_with_another_epoch() -> None:
    lease = Lease("d", "a", 1, 110)
    assert decide(lease, "a", 105, TTL_MS) == Lease("d", "a", 1, 115)
    assert decide(lease, "a", 110, TTL_MS) == Lease("d", "a", 2, 120)


def test_a_lease_that_is_given_back_is_free_at_once() -> None:
    lease = released(Lease("d", "a", 4, 110), "a")
    assert decide(lease, "b", 100, TTL_MS) == Lease("d", "b", 5, 110)
    assert released(Lease("d", "a", 4, 110), "b") == Lease("d", "a", 4, 110)


@given(HISTORIES)
def test_nobody_gets_what_another_one_holds_and_old_fences_never_pass(
    history: list[tuple[str, int, bool]],
) -> None:
    lease, now_ms = Lease("d"), 1000
    fences: list[Fence] = []
    for name, pause_ms, gives_back in history:
        now_ms += pause_ms
        before = lease
        if gives_back:
            lease = released(lease, name)
            continue
        taken = decide(lease, name, now_ms, TTL_MS)
        if taken is None:
            assert before.is_held(now_ms)
            assert before.holder != name
            continue
        lease = taken
        assert lease.holder == name
        assert lease.is_held(now_ms)
        same = before.is_held(now_ms)
        assert lease.epoch == before.epoch + (not same)
        assert not same or before.holder == name
        fences.append(Fence("d", name, lease.epoch))
        passing = {(fence.holder, fence.epoch) for fence in fences if fence.lets_pass(lease)}
        assert passing == {(name, lease.epoch)}


@given(st.integers(0, 50), st.integers(0, 50))
def test_renewal_never_shortens_though_the_clock_steps_back(now_ms: int, later_ms: int) -> None:
    lease = decide(Lease("d"), "a", later_ms, TTL_MS)
    assert lease is not None
    renewed = decide(lease, "a", now_ms, TTL_MS)
    assert renewed is not None
    assert renewed.expires_ms >= lease.expires_ms
