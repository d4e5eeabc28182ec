"""Suspects: in any mixture of deaths from within and from without, exactly the guilty are found."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.suspects import PROOF_TOKENS, Suspects

KILLS_APART = 300  # steps between two deaths from without


@dataclass
class Call:
    length: int
    poison: int | None  # it kills when it has so many tokens
    told: int = 0

    @property
    def is_guilty(self) -> bool:
        return self.poison is not None and self.poison < self.length


class World:
    """One engine, which tells of tokens up to `lag` steps late, and loses those when it dies. It is
    cut off at the steps `cuts`, and heard of as dead; that it was not is known when it is back."""

    def __init__(
        self,
        calls: dict[str, Call],
        kills: set[int],
        lag: int,
        seed: int,
        cuts: frozenset[int] = frozenset(),
    ) -> None:
        self.calls, self.kills, self.lag, self.cuts = calls, kills, lag, cuts
        self.draw = random.Random(seed)
        self.suspects = Suspects()
        self.waiting = list(calls)
        self.running: dict[str, int] = {}  # tokens, those not told of included
        self.finished: set[str] = set()
        self.failed: set[str] = set()
        self.num_steps = self.num_deaths = 0

    def run(self) -> None:
        while self.waiting or self.running:
            assert self.num_deaths < 200, "it goes on for ever"
            self.admit()
            if self.running:
                self.step()

    def admit(self) -> None:
        self.draw.shuffle(self.waiting)
        for name in list(self.waiting):
            if self.suspects.judge(name):
                self.failed.add(name)
                self.suspects.forget(name)
                self.waiting.remove(name)
        for name in list(self.waiting):
            if self.suspects.may_start(name):
                self.suspects.start(name)
                self.waiting.remove(name)
                self.running[name] = self.calls[name].told
        tried = [name for name in self.running if self.suspects.is_suspect(name)]
        assert not tried or len(self.running) == 1, "a suspect is tried alone"

    def step(self) -> None:
        self.num_steps += 1
        deadly = [name for name, num in self.running.items() if num == self.calls[name].poison]
        if self.num_steps in self.cuts:
            self.die(is_cut=True)
            self.suspects.withdraw()
            return
        if deadly or self.num_steps in self.kills:
            self.die()
            return
        for name in list(self.running):
            self.running[name] += 1
            self.see(name)

    def see(self, name: str) -> None:
        call, num = self.calls[name], self.running[name]
        if num == call.length:
            del self.running[name]
            self.finished.add(name)
            self.suspects.forget(name)
        elif self.suspects.is_suspect(name) and self.suspects.is_cleared_by(name, {name: num}):
            del self.running[name]
            call.told = num
            self.suspects.forget(name)
            self.waiting.append(name)

    def die(self, *, is_cut: bool = False) -> None:
        self.num_deaths += not is_cut
        for name, num in self.running.items():
            call = self.calls[name]
            told = max(call.told, num - self.draw.randint(0, self.lag))
            if not self.suspects.is_suspect(name):  # else it is not told before it is cleared
                call.told = told
            self.suspects.see_death(name, {name: told}, may_be_withdrawn=is_cut)
            self.waiting.append(name)
        self.running.clear()


calls = st.builds(Call, st.integers(1, 120), st.none() | st.integers(0, 130) | st.integers(0, 20))


@given(
    st.lists(calls, min_size=1, max_size=9),
    st.lists(st.integers(1, KILLS_APART), max_size=4),
    st.integers(0, PROOF_TOKENS // 2),
    st.integers(0, 2**32),
)
def test_exactly_the_guilty_fail_and_everybody_else_finishes(
    made: list[Call], offsets: list[int], lag: int, seed: int
) -> None:
    everyone = {str(place): call for place, call in enumerate(made)}
    kills = {(2 * place) * KILLS_APART + offset for place, offset in enumerate(offsets, 1)}
    world = World(everyone, kills, lag, seed)
    world.run()
    guilty = {name for name, call in everyone.items() if call.is_guilty}
    assert world.failed == guilty
    assert world.finished == everyone.keys() - guilty


@given(
    st.lists(calls, min_size=1, max_size=6),
    st.frozensets(st.integers(1, 60), max_size=30),
    st.integers(0, PROOF_TOKENS // 2),
    st.integers(0, 2**32),
)
def test_cuts_convict_nobody_and_hide_nobody(
    made: list[Call], cuts: frozenset[int], lag: int, seed: int
) -> None:
    """However often and wherever they come, also while somebody is tried."""
    everyone = {str(place): call for place, call in enumerate(made)}
    world = World(everyone, set(), lag, seed, cuts)
    world.run()
    guilty = {name for name, call in everyone.items() if call.is_guilty}
    assert world.failed == guilty
    assert world.finished == everyone.keys() - guilty


def test_a_loss_that_was_a_crash_counts() -> None:
    suspects = Suspects()
    for place, guilty in ((30, False), (31, True)):
        suspects.start("a")
        suspects.see_death("a", {"r": place}, may_be_withdrawn=True)
        assert suspects.judge("a") is guilty
    suspects.withdraw()  # too late: it has been judged
    assert suspects.is_suspect("a")


def test_a_lone_call_is_guilty_at_the_second_death_in_one_place() -> None:
    suspects = Suspects()
    for place, guilty in ((30, False), (31, True)):
        suspects.start("a")
        suspects.see_death("a", {"r": place})
        assert suspects.judge("a") is guilty


def test_an_engine_that_was_killed_takes_a_third_time_and_another_place_begins_anew() -> None:
    suspects = Suspects()
    for place, guilty in ((30, False), (31, False), (25, False), (25, False), (26, True)):
        suspects.start("a")
        suspects.see_death("a", {"r": place}, was_killed=True)
        assert suspects.judge("a") is guilty


def test_deaths_from_outside_under_a_call_that_gets_on_prove_nothing() -> None:
    suspects = Suspects()
    for place in range(0, 300, 3):
        suspects.start("a")
        suspects.see_death("a", {"r": place})
        assert not suspects.judge("a")


def test_a_poisonous_copy_is_not_hidden_by_its_siblings_that_get_on() -> None:
    suspects = Suspects()
    for place in (50, 100):
        suspects.start("a")
        suspects.see_death("a", {"poisonous": 0, "harmless": place})
        assert suspects.judge("a") is (place == 100)


def test_a_death_with_a_companion_does_not_convict_and_who_left_is_forgotten() -> None:
    suspects = Suspects()
    for _ in range(2):
        for name in "ab":
            suspects.start(name)
        for name in "ab":
            suspects.see_death(name, {"r": 0})
        assert not any(suspects.judge(name) for name in "ab")
    assert suspects.may_start("a")
    assert not suspects.may_start("b")
    assert not suspects.may_start("new")
    assert suspects.forget("a")
    assert suspects.may_start("b")
    assert suspects.forget("b")
    assert not suspects.forget("b")
    assert suspects.may_start("new")
    assert not suspects.is_anyone
