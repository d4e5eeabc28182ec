"""Reservations ahead of two coordinators, with calls, ends and deaths in any order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from novacron.accounts.ahead import KEPT_S, ReservationsAhead
from novacron.accounts.balance import DAY_MS, Balance, Closing, given_back
from novacron.accounts.posting import (
    ROOM_AHEAD,
    Entry,
    Outcome,
    Posting,
    Reserve,
    Settle,
    Usage,
    decide,
)
from novacron.accounts.quota import Account, Quota
from novacron.accounts.wish import Wish
from novacron.errors import QuotaExceeded

START_MS = 20_000 * DAY_MS
ANN, BOB = Account("acme", "ann"), Account("acme", "bob")


def wish(prompt: int, answer: int | None = 20) -> Wish:
    return Wish(prompts=(prompt,), answers=(answer,), model="m", model_len=1000)


class PaperBook:
    """What LedgerBook does, without a database."""

    def __init__(self, quota: Quota) -> None:
        self.quotas = {"tenant:acme": quota}
        self.balances = {name: Balance() for name in ("tenant:acme", "user:ann", "user:bob")}
        self.open: dict[str, tuple[Account, Entry]] = {}
        self.counted = 0

    @property
    def tenant(self) -> Balance:
        return self.balances["tenant:acme"]

    def post(self, postings: Sequence[Posting], now_s: float) -> list[Outcome]:
        return [self._one(posting, START_MS + int(1000 * now_s)) for posting in postings]

    def expire(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._close(id, self.open[id][1].tokens, never_ran=False)

    def _one(self, posting: Posting, now_ms: int) -> Outcome:
        if isinstance(posting, Reserve):
            outcome = decide(posting, self.balances, self.quotas, now_ms)
            if isinstance(outcome, Entry):
                self.open[posting.id] = (posting.account, outcome)
            return outcome
        used = 0 if posting.usage is None else posting.usage.tokens
        self._close(posting.id, used, never_ran=posting.usage is None)
        return None

    def _close(self, id: str, used: int, *, never_ran: bool) -> None:
        account, entry = self.open.pop(id)
        self.counted += used
        closing = Closing(
            day=entry.day,
            hour=entry.hour,
            taken_tokens=entry.tokens,
            used_tokens=used,
            was_active=True,
            never_ran=never_ran,
        )
        for subject in account.subjects:
            self.balances[subject] = given_back(self.balances[subject], closing)


class Coordinator:
    """A ledger without its event loop."""

    def __init__(self, book: PaperBook, name: str) -> None:
        self._book = book
        numbers = count()
        self._new_id = lambda: f"{name} {next(numbers)}"
        self.ahead = ReservationsAhead(self._new_id)
        self.running: list[tuple[Account, Entry, Wish]] = []
        self.own: set[str] = set()
        self.num_from_ahead = 0

    def call(self, account: Account, wanted: Wish, now_s: float) -> Outcome:
        outcome: Outcome = self.ahead.take(account, wanted, now_s)
        self.num_from_ahead += outcome is not None
        if outcome is None:
            [outcome] = self._book.post([Reserve(self._new_id(), account, wanted)], now_s)
        if isinstance(outcome, Entry):
            assert outcome.id in self._book.open
            self.own.add(outcome.id)
            self.running.append((account, outcome, wanted))
        return outcome

    def end(self, which: int, used: int, now_s: float) -> None:
        """The call has used as much of its answer as that, or never ran."""
        account, entry, wanted = self.running.pop(which % len(self.running))
        [prompt] = wanted.prompts
        usage = Usage(prompt_tokens=prompt, output_tokens=min(used, entry.answers[0]))
        self._book.post([Settle(entry.id, account, usage if used else None)], now_s)

    def batch(self, now_s: float) -> None:
        self._book.post(self.ahead.too_old(now_s), now_s)
        postings = self.ahead.to_post(100)
        outcomes = self._book.post(postings, now_s)
        self.own |= {one.id for one in outcomes if isinstance(one, Entry)}
        self.ahead.put(postings, outcomes, now_s)

    def die(self) -> None:
        self._book.expire([id for id in self.own if id in self._book.open])


steps = st.lists(
    st.tuples(
        st.sampled_from(["call"] * 6 + ["end"] * 4 + ["batch"] * 3 + ["die"]),
        st.integers(0, 1),  # which coordinator
        st.sampled_from([ANN, BOB]),
        st.integers(1, 300),  # prompt; or which call ends
        st.none() | st.sampled_from([1, 30]),  # answer
        st.integers(0, 40),  # what of it was used
        st.sampled_from([0.0, 0.01, 0.1, 2.0]),  # passes before
    ),
    max_size=150,
)
quotas = st.builds(
    Quota,
    tokens_per_day=st.none() | st.integers(15_000, 90_000),
    concurrent_requests=st.none() | st.integers(60, 80),
    answer_tokens=st.none() | st.just(30),
)


@given(quotas, steps)
def test_no_order_of_calls_and_deaths_takes_more_than_a_quota(
    quota: Quota, todo: list[tuple[str, int, Account, int, int | None, int, float]]
) -> None:
    book = PaperBook(quota)
    numbers = count(2)
    coordinators = [Coordinator(book, f"c{number}") for number in range(2)]
    handed_out: set[str] = set()
    now_s = 0.0
    for what, which, account, prompt, answer, used, pause_s in todo:
        now_s += pause_s
        one = coordinators[which]
        if what == "call":
            outcome = one.call(account, wish(prompt, answer), now_s)
            if isinstance(outcome, Entry):
                assert outcome.id not in handed_out
                handed_out.add(outcome.id)
                assert prompt + sum(outcome.answers) <= outcome.tokens
        elif what == "end" and one.running:
            one.end(prompt, used, now_s)
        elif what == "batch":
            one.batch(now_s)
        elif what == "die":
            one.die()
            coordinators[which] = Coordinator(book, f"c{next(numbers)}")
        held = sum(entry.tokens for _, entry in book.open.values())
        assert book.tenant.day_tokens == book.counted + held
        assert book.tenant.active_requests == len(book.open)
        if quota.tokens_per_day is not None:
            assert book.tenant.day_tokens <= quota.tokens_per_day
        if quota.concurrent_requests is not None:
            assert book.tenant.active_requests <= quota.concurrent_requests
    for one in coordinators:
        while one.running:
            one.end(0, 5, now_s)
        book.post(one.ahead.too_old(float("inf")), now_s)
    assert not book.open
    assert book.tenant.day_tokens == book.counted


def busy(book: PaperBook) -> Coordinator:
    """One whose caller has called twice, and has reservations ahead if there is room."""
    one = Coordinator(book, "busy")
    for _ in range(2):
        one.call(ANN, wish(100), 0.0)
    one.batch(0.0)
    return one


def test_a_caller_that_comes_again_finds_a_reservation() -> None:
    one = busy(PaperBook(Quota()))
    entry = one.call(ANN, wish(200, 7), 0.5)  # not longer than those before, up to a step
    assert one.num_from_ahead == 0, "another longest answer is another kind of call"
    entry = one.call(ANN, wish(200), 0.5)
    assert one.num_from_ahead == 1
    assert isinstance(entry, Entry)
    assert entry.answers == (20,)
    one.call(ANN, wish(257), 0.5)
    one.call(BOB, wish(100), 0.5)
    assert one.num_from_ahead == 1


def test_a_caller_that_comes_once_a_second_reserves_nothing_ahead() -> None:
    book = PaperBook(Quota())
    one = Coordinator(book, "c")
    for second in range(5):
        one.call(ANN, wish(100), float(second))
        one.batch(float(second))
        one.end(0, 1, second)
        assert not book.open


def test_one_that_nobody_takes_is_given_back() -> None:
    book = PaperBook(Quota())
    one = busy(book)
    assert len(book.open) == 3
    one.batch(KEPT_S)
    assert len(book.open) == 2
    one.call(ANN, wish(100), KEPT_S)
    assert one.num_from_ahead == 0


def test_one_is_made_only_where_there_is_room_for_many() -> None:
    for room, is_made in ((1 + ROOM_AHEAD, False), (2 + ROOM_AHEAD, True)):
        book = PaperBook(Quota(concurrent_requests=room))
        one = busy(book)
        assert len(book.open) == 2 + is_made
        one.call(ANN, wish(100), 0.1)
        assert one.num_from_ahead == is_made
    assert not busy(PaperBook(Quota(requests_per_minute=60))).ahead.give_back("user:ann")
    assert busy(PaperBook(Quota(tokens_per_day=10**6))).ahead.give_back("user:ann")


def test_a_call_that_its_quota_forbids_is_left_to_the_ledger() -> None:
    book = PaperBook(Quota(answer_tokens=30))
    one = busy(book)
    one.call(ANN, wish(100, None), 0.1)
    one.call(ANN, wish(100, None), 0.1)
    one.batch(0.1)
    entry = one.call(ANN, wish(90, None), 0.2)
    assert one.num_from_ahead == 1
    assert isinstance(entry, Entry)
    assert entry.answers == (30,)
    book.quotas["tenant:acme"] = Quota(concurrent_requests=0)
    assert isinstance(one.call(ANN, wish(90, None), 0.2 + KEPT_S), QuotaExceeded)


def test_wishes_of_several_requests_are_never_reserved_ahead() -> None:
    book = PaperBook(Quota())
    one = Coordinator(book, "c")
    several = msgspec.structs.replace(wish(100), prompts=(1, 1), answers=(1, 1))
    for _ in range(5):
        one.ahead.take(ANN, several, 0.0)
    assert not one.ahead.wants
