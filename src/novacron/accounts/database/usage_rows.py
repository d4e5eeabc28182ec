"""Questions about usage, answered by the database."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, literal_column, select

from novacron.accounts.database import lease_rows
from novacron.accounts.database.connection import Database
from novacron.accounts.database.tables import usage
from novacron.accounts.usage import UsageQuestion, UsageRow, row_of
from novacron.coordination.lease import Fence

_HOUR_S: Final = 3600
_COLUMNS: Final[dict[str, ColumnElement[Any]]] = {
    "hour": usage.c.hour,
    "day": usage.c.hour // literal_column("24"),  # a parameter would be another one in GROUP BY
    "tenant": usage.c.tenant_id,
    "user": usage.c.user_id,
    "key": usage.c.key_id,
    "model": usage.c.model,
    "variant": usage.c.variant,
}
_SUMS: Final = tuple(
    func.coalesce(func.sum(usage.c[name]), 0)
    for name in (
        "requests", "prompt_tokens", "cached_tokens", "output_tokens", "expired_tokens",
        "cost_pico",
    )
)  # fmt: skip


def ask(database: Database, question: UsageQuestion) -> list[UsageRow]:
    """In the order of the groups. Without groups, one row."""
    groups = [_COLUMNS[group] for group in question.by]
    statement = select(*groups, *_SUMS).where(usage.c.hour >= question.since // _HOUR_S)
    if question.until is not None:
        statement = statement.where(usage.c.hour * _HOUR_S < question.until)
    for name in ("tenant", "user", "key", "model"):
        if wanted := getattr(question, name):
            statement = statement.where(_COLUMNS[name] == wanted)
    if groups:
        statement = statement.group_by(*groups).order_by(*groups)
    with database.reading() as connection:
        rows = [tuple(row) for row in connection.execute(statement)]
    num = len(groups)
    return [
        row_of(question.by, row[:num], [int(sum) for sum in row[num:-1]], int(row[-1]))
        for row in rows
    ]


def purge(database: Database, tenant: str, before_s: float, fence: Fence | None = None) -> int:
    """Remove sums of whole hours before that time (Unix seconds); how many rows. Limits are not
    touched: they have balances of their own. Under a lease, raises LeaseLost."""
    old = (usage.c.tenant_id == tenant) & ((usage.c.hour + 1) * _HOUR_S <= int(before_s))
    with database.writing() as connection:
        if fence is not None:
            lease_rows.check(connection, fence)
        return connection.execute(delete(usage).where(old)).rowcount
