"""A seat over a registry that a test controls, beaten and worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.coordination.lease import Fence, Lease, LeaseLost, decide, released
from novacron.coordination.member import Member, Picture
from novacron.coordination.seat import Duty, Seat
from novacron.errors import DatabaseUnavailable
from novacron.testing.clock import FakeClock

TIMEOUT_S = 3.0


class FakeRegistry:
    """A registry in memory, whose clock is the test's."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.members: dict[str, Member] = {}
        self.leases: dict[str, Lease] = {}
        self.is_gone = False

    def beat(self, member: Member, duties: Sequence[str], ttl_ms: int) -> Picture:
        if self.is_gone:
            raise DatabaseUnavailable("gone")
        now_ms = round(self._clock() * 1000)
        self.members[member.id] = Member(id=member.id, alive_until_ms=now_ms + ttl_ms)
        for duty in duties:
            lease = decide(self.leases.get(duty, Lease(duty)), member.id, now_ms, ttl_ms)
            self.leases[duty] = lease or self.leases[duty]
        return Picture(
            now_ms=now_ms, members=dict(self.members), leases=tuple(self.leases.values())
        )

    def leave(self, member_id: str) -> None:
        if self.is_gone:
            raise DatabaseUnavailable("gone")
        del self.members[member_id]
        self.leases = {name: released(one, member_id) for name, one in self.leases.items()}


class Table:
    """Two seats with the same duty."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = FakeRegistry(self.clock)
        self.done: list[Fence] = []
        self.a, self.b = self.seat("a"), self.seat("b")

    def seat(self, name: str) -> Seat:
        seat = Seat(self.registry, Member(id=name), TIMEOUT_S, self.clock)
        seat.add(Duty(name="sweep", every_s=10.0, run=self.do))
        return seat

    def do(self, fence: Fence) -> None:
        if not fence.lets_pass(self.registry.leases["sweep"]):
            raise LeaseLost("gone")
        self.done.append(fence)


def test_one_of_two_does_the_duty_when_it_is_due() -> None:
    table = Table()
    for seat in (table.a, table.b, table.a):
        seat.beat()
        seat.work()
    assert table.done == [Fence("sweep", "a", 1)]
    for _ in range(10):
        table.clock.advance(1.0)
        for seat in (table.a, table.b):
            seat.beat()
            seat.work()
    assert table.done == [Fence("sweep", "a", 1)] * 2


def test_another_one_takes_over_from_who_is_silent() -> None:
    table = Table()
    table.a.beat()
    table.clock.advance(TIMEOUT_S)
    table.b.beat()
    table.b.work()
    assert table.done == [Fence("sweep", "b", 2)]
    assert table.b.picture.is_alive("b")
    assert not table.b.picture.is_alive("a")


def test_a_holder_that_was_stopped_knows_by_its_own_clock_that_its_time_is_over() -> None:
    table = Table()
    table.a.beat()
    assert table.a.fence_of("sweep") == Fence("sweep", "a", 1)
    table.registry.is_gone = True
    table.clock.advance(TIMEOUT_S)
    assert table.a.fence_of("sweep") is None
    table.a.work()
    assert table.done == []


def test_a_holder_that_does_not_know_is_stopped_by_its_fence() -> None:
    """Stopped between its look at the clock and its work, which a test cannot: so its clock is."""
    table = Table()
    stopped = Seat(table.registry, Member(id="a"), TIMEOUT_S, FakeClock())
    stopped.add(Duty(name="sweep", every_s=1.0, run=table.do))
    stopped.beat()
    table.clock.advance(TIMEOUT_S)
    table.b.beat()
    stopped.work()
    assert table.done == []
    assert stopped.fence_of("sweep") is None
    table.b.work()
    assert table.done == [Fence("sweep", "b", 2)]


def test_who_ends_leaves_its_duties_at_once() -> None:
    table = Table()
    table.a.beat()
    table.a.close()
    table.b.beat()
    assert table.b.fence_of("sweep") == Fence("sweep", "b", 2)
    assert list(table.b.picture.members) == ["b"]


def test_a_duty_that_fails_is_tried_again_and_keeps_no_other_from_its_turn() -> None:
    table = Table()
    done = []

    def fail(fence: Fence) -> None:
        done.append("failing")
        raise DatabaseUnavailable("gone")

    def break_down(fence: Fence) -> None:
        raise ZeroDivisionError

    seat = Seat(table.registry, Member(id="c"), TIMEOUT_S, table.clock)
    seat.add(
        Duty(name="broken", every_s=1.0, run=break_down),
        Duty(name="failing", every_s=1.0, run=fail),
        Duty(name="good", every_s=1.0, run=lambda fence: done.append("good")),
    )
    for _ in range(2):
        seat.beat()
        seat.work()
        table.clock.advance(1.0)
    assert done == ["failing", "good"] * 2


def test_closing_without_a_database_ends_all_the_same() -> None:
    table = Table()
    table.a.start()
    table.registry.is_gone = True
    table.a.close()
    assert table.a.fence_of("sweep") is None
