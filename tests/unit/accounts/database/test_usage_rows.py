from __future__ import annotations

import csv
import io

import pytest

from novacron.accounts.balance import HOUR_MS
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.limits import Prices
from novacron.accounts.database.usage_rows import ask
from novacron.accounts.posting import Reserve, Settle, Usage
from novacron.accounts.price import Price, micro_of
from novacron.accounts.quota import Account
from novacron.accounts.usage import UsageQuestion, as_csv
from novacron.accounts.wish import Wish

START_MS = 20_000 * 24 * HOUR_MS + 22 * HOUR_MS


@pytest.fixture
def used(database: Database) -> Database:
    """Three calls: ann's at 22:00 and 0:00, bob's at 23:00."""
    Prices(database).set("m", Price(prompt_micro=micro_of("0.15"), output_micro=micro_of("0.6")))
    now_ms = START_MS
    book = LedgerBook(database, clock_ms=lambda: now_ms)
    for i, user in enumerate(("ann", "bob", "ann")):
        now_ms = START_MS + i * HOUR_MS
        account = Account("acme", user, "=key")
        wish = Wish(prompts=(100,), answers=(50,), model="m", model_len=1000)
        book.post([Reserve(str(i), account, wish)])
        book.post([Settle(str(i), account, Usage(prompt_tokens=100, output_tokens=10 * i))])
    return database


def test_sums_by_user(used: Database) -> None:
    ann, bob = ask(used, UsageQuestion(by=("user",)))
    assert (ann.user, ann.requests, ann.prompt_tokens, ann.output_tokens) == ("ann", 2, 200, 20)
    assert (bob.user, bob.requests, bob.output_tokens) == ("bob", 1, 10)
    assert ann.cost == "0.000042"  # 200 * 0.15 + 20 * 0.6 = 42 millionths


def test_days_and_hours(used: Database) -> None:
    days = ask(used, UsageQuestion(by=("day", "model")))
    assert [(row.start, row.requests) for row in days] == [
        (20_000 * 86_400, 2),
        (20_001 * 86_400, 1),
    ]
    hours = ask(used, UsageQuestion(by=("hour",), until=START_MS // 1000 + 3600))
    assert [(row.start, row.requests) for row in hours] == [(START_MS // 1000, 1)]


def test_only_what_is_asked_for(used: Database) -> None:
    [row] = ask(used, UsageQuestion(by=(), user="ann", since=START_MS // 1000 + 3600))
    assert (row.requests, row.output_tokens) == (1, 20)
    [nothing] = ask(used, UsageQuestion(by=(), tenant="nobody"))
    assert (nothing.requests, nothing.cost) == (0, "0")


def test_csv_has_the_same_and_no_formulas(used: Database) -> None:
    question = UsageQuestion(by=("key", "user"))
    rows = ask(used, question)
    read = list(csv.DictReader(io.StringIO(as_csv(question.by, rows))))
    assert [row["key"] for row in read] == ["'=key"] * 2
    assert [int(row["prompt_tokens"]) for row in read] == [row.prompt_tokens for row in rows]
