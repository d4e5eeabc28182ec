"""The ledger's process: what it answers, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.accounts.book_messages import (
    Failed,
    Post,
    Posted,
    Renewed,
    frame,
    outcome_of,
    read_answer,
    read_question,
    take_frames,
    told,
)
from novacron.accounts.book_process import BookProcess
from novacron.accounts.database.store import Store
from novacron.accounts.ledger import Ledger
from novacron.accounts.posting import Entry, Reserve, Settle, Usage
from novacron.accounts.quota import Account, Quota
from novacron.accounts.usage import UsageQuestion
from novacron.accounts.wish import Wish
from novacron.errors import (
    DatabaseUnavailable,
    Forbidden,
    InvalidRequest,
    NovaCronError,
    QuotaExceeded,
)
from novacron.testing.waiting import until

ACME, OTHERS = Account("acme"), Account("others")
WISH = Wish(prompts=(10,), answers=(20,), model="m", model_len=1000)
USED = Usage(prompt_tokens=10, output_tokens=5)


@pytest.fixture
def store(sqlite_template: Path, tmp_path: Path) -> Store:
    shutil.copy(sqlite_template, tmp_path / "accounts.db")
    store = Store(f"sqlite:///{tmp_path}/accounts.db")
    for name in ("acme", "others"):
        store.tenants.create(name)
    store.quotas.set("tenant", "acme", Quota(tokens_per_day=50, context_tokens=100))
    store.quotas.set("tenant", "others", Quota(models=("another",)))
    return store


@pytest.fixture
async def book(store: Store, tmp_path: Path) -> AsyncIterator[BookProcess]:
    book = BookProcess(f"sqlite:///{tmp_path}/accounts.db", "coordinator")
    yield book
    await book.close()
    store.close()


def pid_of(book: BookProcess) -> int:
    return book._process.pid


async def test_a_process_decides_as_the_book_itself_does_and_survives_its_death(
    book: BookProcess, store: Store
) -> None:
    long = Wish(prompts=(101,), answers=(1,), model="m", model_len=1000)
    first, second, refused, never = await book.post(
        [
            Reserve("a", ACME, WISH),
            Reserve("b", ACME, WISH),
            Reserve("c", OTHERS, WISH),
            Reserve("d", ACME, long),
        ]
    )
    assert isinstance(first, Entry)
    assert (first.tokens, first.rate_limits["remaining-tokens"]) == (30, "20")
    assert isinstance(second, QuotaExceeded)
    assert second.rate_limits["remaining-tokens"] == "20"
    assert isinstance(refused, Forbidden)
    assert isinstance(never, InvalidRequest)
    assert never.param == "max_tokens"
    assert await book.post([Settle("a", ACME, USED)]) == [None]
    assert store.verify() == []

    dead = pid_of(book)
    os.kill(dead, signal.SIGTERM)  # as a shell's Ctrl-C: others of its group get it, too
    assert isinstance((await book.post([Reserve("e", ACME, WISH)]))[0], Entry)
    os.kill(dead, signal.SIGKILL)
    with pytest.raises(DatabaseUnavailable, match="has ended"):
        await until_it_fails(book)
    assert await book.post([Settle("e", ACME, USED)]) == [None]
    assert pid_of(book) != dead
    assert store.verify() == []
    with pytest.raises(RuntimeError, match="IntegrityError"):  # a bug over there: used twice
        await book.post([Reserve("e", OTHERS, Wish(**{**fields(WISH), "model": "another"}))])


async def until_it_fails(book: BookProcess) -> None:
    for _ in range(1000):
        await book.renew()


def fields(wish: Wish) -> dict[str, object]:
    return {name: getattr(wish, name) for name in wish.__struct_fields__}


async def test_a_ledger_goes_on_with_another_process(book: BookProcess, store: Store) -> None:
    ledger = Ledger(book)
    ledger.start()
    entry = await ledger.reserve(ACME, WISH)
    os.kill(pid_of(book), signal.SIGKILL)
    ledger.settle(entry.id, ACME, USED)
    await until(lambda: not store.verify() and spent(store) == USED.tokens)
    assert await ledger.close(10.0)


def spent(store: Store) -> int:
    [row] = store.usage(UsageQuestion(by=())) or [None]
    return 0 if row is None else row.prompt_tokens + row.output_tokens


async def test_a_process_that_cannot_start_lets_nothing_in() -> None:
    book = BookProcess(
        "sqlite:////nowhere", "coordinator", (sys.executable, "-c", "raise SystemExit(1)")
    )
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await book.post([Reserve("a", ACME, WISH)])
    await book.close()


@settings(max_examples=40)
@given(
    st.lists(st.text(max_size=40), max_size=5),
    st.lists(st.integers(min_value=1, max_value=7), min_size=1),
)
def test_frames_arrive_whole_however_they_are_cut(reasons: list[str], cuts: list[int]) -> None:
    sent = [Failed(reason, is_bug=False) for reason in reasons]
    line = b"".join(map(frame, sent))
    received, found = bytearray(), []
    place = 0
    while place < len(line):
        size = cuts[place % len(cuts)]
        received += line[place : place + size]
        place += size
        found += [read_answer(data) for data in take_frames(received)]
    assert found == sent
    assert not received


def test_postings_and_outcomes_come_as_they_were_sent() -> None:
    postings = (Reserve("a", ACME, WISH), Settle("b", OTHERS, USED), Settle("c", ACME, None))
    [data] = take_frames(bytearray(frame(Post(postings))))
    assert read_question(data) == Post(postings)
    [data] = take_frames(bytearray(frame(Renewed())))
    assert read_answer(data) == Renewed()
    ahead = Entry("a", 30, (20,), 7, 9, {}, "low", (("tenant:acme", Quota(answer_tokens=20)),))
    [data] = take_frames(bytearray(frame(Posted((ahead, None)))))
    assert read_answer(data) == Posted((ahead, None))
    errors: list[NovaCronError] = [
        QuotaExceeded("q", 7.5, {"limit-tokens": "9"}, "tenant:acme"),
        InvalidRequest("i", "max_tokens"),
        Forbidden("f"),
    ]
    for error in errors:
        again = outcome_of(told(error))
        assert type(again) is type(error)
        assert (again.args, vars(again)) == (error.args, vars(error))
    with pytest.raises(TypeError):
        told(DatabaseUnavailable("gone"))
