"""Calls of a tenant's users, at any time and in any order, against a sum over all of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.accounts.balance import DAY_MS, HOUR_MS, Balance, Closing, given_back
from novacron.accounts.posting import Entry, Reserve, decide
from novacron.accounts.quota import Account, Quota
from novacron.accounts.standing import duration, seconds_of
from novacron.accounts.wish import Wish
from novacron.errors import Forbidden, InvalidRequest, NovaCronError, QuotaExceeded

NOW = 20_000 * DAY_MS + 5 * HOUR_MS
ANN = Account("acme", "ann")
NOTHING = {"tenant:acme": Balance(), "user:ann": Balance(), "user:bob": Balance()}


def wish(prompt: int = 10, answer: int | None = 20, **more: object) -> Wish:
    return Wish(prompts=(prompt,), answers=(answer,), model="m", model_len=1000, **more)  # type: ignore[arg-type]


def ask(
    quotas: dict[str, Quota], wanted: Wish | None = None, *, after: int = 0, now: int = NOW
) -> Entry | NovaCronError:
    """The outcome of a call, after as many equal ones."""
    balances = dict(NOTHING)
    for i in range(after + 1):
        outcome = decide(Reserve(str(i), ANN, wanted or wish()), balances, quotas, now)
    return outcome


limits = st.none() | st.integers(0, 200)
some_quotas = st.builds(
    Quota,
    tokens_per_day=limits,
    requests_per_hour=limits,
    concurrent_requests=st.none() | st.integers(0, 5),
    tokens_per_minute=limits,
    requests_per_minute=limits,
)
actions = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.integers(0, HOUR_MS),  # passes before
        st.integers(0, 30),  # prompt
        st.integers(1, 30),  # answer
        st.integers(0, 8),  # which running call ends before, if there are so many
        st.integers(0, 60),  # what that used, if it had taken so much
        st.booleans(),  # or it never ran
    ),
    max_size=60,
)


@given(some_quotas, some_quotas, actions)
def test_no_order_of_calls_takes_more_than_a_quota(
    tenant: Quota, ann: Quota, steps: list[tuple[str, int, int, int, int, int, bool]]
) -> None:
    quotas = {"tenant:acme": tenant, "user:ann": ann}
    balances = dict(NOTHING)
    running: list[tuple[tuple[str, ...], Entry]] = []
    counted: dict[tuple[str, int], int] = {}  # tokens by subject and day
    begun: dict[tuple[str, int], int] = {}  # requests by subject and hour
    now = NOW
    for i, (user, pause, prompt, answer, which, used, never_ran) in enumerate(steps):
        now += pause
        if which < len(running):
            subjects, entry = running.pop(which)
            used = 0 if never_ran else min(used, entry.tokens)
            closing = Closing(
                day=entry.day,
                hour=entry.hour,
                taken_tokens=entry.tokens,
                used_tokens=used,
                was_active=True,
                never_ran=never_ran,
            )
            for subject in subjects:
                balances[subject] = given_back(balances[subject], closing)
                counted[subject, entry.day] -= entry.tokens - used
                begun[subject, entry.hour] -= never_ran
        account = Account("acme", user)
        outcome = decide(Reserve(str(i), account, wish(prompt, answer)), balances, quotas, now)
        if isinstance(outcome, Entry):
            running.append((account.subjects, outcome))
            for subject in account.subjects:
                counted[subject, outcome.day] = counted.get((subject, outcome.day), 0) + (
                    prompt + answer
                )
                begun[subject, outcome.hour] = begun.get((subject, outcome.hour), 0) + 1
        for subject, balance in balances.items():
            quota = quotas.get(subject, Quota())
            active = sum(subject in subjects for subjects, _ in running)
            assert balance.active_requests == active
            assert balance.day_tokens == counted.get((subject, balance.day), 0)
            assert balance.hour_requests == begun.get((subject, balance.hour), 0)
            assert min(balance.token_debt, balance.request_debt) >= 0
            for most, taken in (
                (quota.tokens_per_day, balance.day_tokens),
                (quota.requests_per_hour, balance.hour_requests),
                (quota.concurrent_requests, active),
            ):
                assert most is None or taken <= most


@given(some_quotas, st.integers(0, 40), st.integers(0, DAY_MS))
def test_after_the_wait_it_is_told_a_call_may_start(quota: Quota, calls: int, time: int) -> None:
    balances = dict(NOTHING)
    quota = msgspec.structs.replace(quota, concurrent_requests=None)
    quotas, now = {"user:ann": quota}, NOW + time
    for i in range(calls):
        decide(Reserve(str(i), ANN, wish(1, 5)), balances, quotas, now)
    outcome = decide(Reserve("x", ANN, wish(1, 5)), balances, quotas, now)
    zeros = (quota.requests_per_hour, quota.requests_per_minute)
    if not isinstance(outcome, QuotaExceeded) or 0 in zeros:
        return
    assert outcome.retry_after_s is not None
    later = now + round(outcome.retry_after_s * 1000)
    early = decide(Reserve("y", ANN, wish(1, 5)), dict(balances), quotas, later - 1)
    assert isinstance(early, QuotaExceeded)
    assert isinstance(decide(Reserve("z", ANN, wish(1, 5)), balances, quotas, later), Entry)


def test_a_refusal_takes_nothing_and_names_whose_limit_it_is() -> None:
    balances = dict(NOTHING)
    outcome = decide(
        Reserve("1", ANN, wish()), balances, {"tenant:acme": Quota(concurrent_requests=0)}, NOW
    )
    assert isinstance(outcome, QuotaExceeded)
    assert "tenant:acme is 0 requests at a time" in str(outcome)
    assert balances == NOTHING


def test_the_longest_wait_is_told() -> None:
    quotas = {
        "tenant:acme": Quota(requests_per_minute=1),
        "user:ann": Quota(requests_per_hour=1),
    }
    outcome = ask(quotas, after=1)
    assert isinstance(outcome, QuotaExceeded)
    assert outcome.retry_after_s == HOUR_MS / 1000
    assert "1 requests an hour" in str(outcome)


@pytest.mark.parametrize(
    ("quota", "error", "said"),
    [
        (Quota(models=("a", "b")), Forbidden, "model 'm'. Allowed: a, b"),
        (Quota(variants=("int8",)), Forbidden, "precision ''"),
        (Quota(context_tokens=29), InvalidRequest, "context_tokens=29"),
        (Quota(answer_tokens=19), InvalidRequest, "answer_tokens=19"),
        (Quota(tokens_per_day=29), InvalidRequest, "tokens_per_day=29"),
        (Quota(tokens_per_minute=29), InvalidRequest, "tokens_per_minute=29"),
    ],
)
def test_what_no_waiting_changes_is_no_429(
    quota: Quota, error: type[NovaCronError], said: str
) -> None:
    outcome = ask({"user:ann": quota})
    assert type(outcome) is error
    assert said in str(outcome)


@pytest.mark.parametrize(
    ("quota", "longest"),
    [
        (Quota(), 990),
        (Quota(context_tokens=100), 90),
        (Quota(answer_tokens=7), 7),
        (Quota(context_tokens=100, answer_tokens=95), 90),
    ],
)
def test_an_answer_of_no_named_length_gets_what_the_quota_allows(
    quota: Quota, longest: int
) -> None:
    outcome = ask({"tenant:acme": quota}, wish(10, None))
    assert isinstance(outcome, Entry)
    assert outcome.answers == (longest,)
    assert outcome.tokens == 10 + longest


def test_copies_of_a_prompt_count_once() -> None:
    several = Wish(prompts=(10, 10, 30, 30), answers=(5, 5, 5, 5), n=2, model="m", model_len=1000)
    outcome = ask({}, several)
    assert isinstance(outcome, Entry)
    assert outcome.tokens == 10 + 30 + 4 * 5


def test_the_tightest_limit_is_told() -> None:
    quotas = {
        "tenant:acme": Quota(tokens_per_day=1000, requests_per_hour=50),
        "user:ann": Quota(tokens_per_day=100, requests_per_minute=3),
    }
    outcome = ask(quotas, after=1)
    assert isinstance(outcome, Entry)
    assert outcome.rate_limits == {
        "limit-requests": "3",
        "remaining-requests": "1",
        "reset-requests": "40s",
        "limit-tokens": "100",
        "remaining-tokens": "40",
        "reset-tokens": "19h0m0s",
    }


@given(st.integers(0, 3 * DAY_MS))
def test_a_duration_can_be_read_again(ms: int) -> None:
    lost_ms = seconds_of(duration(ms)) * 1000 - ms
    assert -0.01 < lost_ms < 1000  # long ones are rounded up to seconds


def test_a_refusal_tells_the_limits_too() -> None:
    outcome = ask({"user:ann": Quota(requests_per_minute=1)}, after=1)
    assert isinstance(outcome, QuotaExceeded)
    assert outcome.rate_limits["remaining-requests"] == "0"


def test_a_new_day_has_its_tokens_again_and_a_clock_behind_does_not_bring_the_old_one_back() -> (
    None
):
    balances, quotas = dict(NOTHING), {"user:ann": Quota(tokens_per_day=30)}
    assert isinstance(decide(Reserve("1", ANN, wish()), balances, quotas, NOW), Entry)
    assert isinstance(decide(Reserve("2", ANN, wish()), balances, quotas, NOW), QuotaExceeded)
    tomorrow = NOW + DAY_MS
    assert isinstance(decide(Reserve("3", ANN, wish()), balances, quotas, tomorrow), Entry)
    assert isinstance(decide(Reserve("4", ANN, wish()), balances, quotas, NOW), QuotaExceeded)
    assert balances["tenant:acme"].day == tomorrow // DAY_MS
