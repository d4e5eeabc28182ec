"""What was used, by whom, of which model, and at what cost: questions, answers, exports. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final, Literal, cast

import msgspec

from novacron.accounts.price import text_of_pico

Group = Literal["hour", "day", "tenant", "user", "key", "model", "variant"]

GROUPS: Final[tuple[Group, ...]] = ("hour", "day", "tenant", "user", "key", "model", "variant")
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400


def groups_of(text: str) -> tuple[Group, ...]:
    """`tenant,day`. Raises ValueError for what is none, or is there twice."""
    names = tuple(filter(None, text.split(",")))
    is_twice = len(set(names)) < len(names) or {"hour", "day"} <= set(names)
    if is_twice or not set(names) <= set(GROUPS):
        raise ValueError(
            f"by is {text!r}: give any of {', '.join(GROUPS)} once, with commas between, and not "
            "both hour and day."
        )
    return cast(tuple[Group, ...], names)


class UsageQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over hours from `since` to before `until` (Unix seconds), one for each group in `by`.

    Hours are those of UTC in which calls began. Empty ids: all.
    """

    by: tuple[Group, ...] = ("tenant",)
    since: int = 0
    until: int | None = None
    tenant: str = ""
    user: str = ""
    key: str = ""
    model: str = ""


class UsageRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sum. Of the names, those are set that were asked for; `start` (Unix seconds) is that of
    the hour or day. Cached tokens are among those of the prompt. `expired_tokens` were reserved by
    calls whose server vanished. `cost` is a decimal number in the currency of the prices.
    """

    start: int | None = None
    tenant: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    variant: str | None = None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    expired_tokens: int
    cost: str


_NUMBERS: Final = (
    "requests", "prompt_tokens", "cached_tokens", "output_tokens", "expired_tokens", "cost",
)  # fmt: skip


def row_of(
    by: Sequence[Group], names: Sequence[str | int], sums: Sequence[int], cost_pico: int
) -> UsageRow:
    """`names` in the order of `by`, hours and days as numbers since 1970; `sums` as UsageRow."""
    values: dict[str, str | int] = {}
    for group, name in zip(by, names, strict=True):
        if group in ("hour", "day"):
            values["start"] = int(name) * (_HOUR_S if group == "hour" else _DAY_S)
        else:
            values[group] = name
    counts = dict(zip(_NUMBERS, sums, strict=False))
    return msgspec.convert({**values, **counts, "cost": text_of_pico(cost_pico)}, UsageRow)


def as_csv(by: Sequence[Group], rows: Sequence[UsageRow]) -> str:
    """With a line of names. Formulas that a spreadsheet would run are made text."""
    columns = [*("start" if group in ("hour", "day") else group for group in by), *_NUMBERS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_harmless(getattr(row, column)) for column in columns])
    return out.getvalue()


def _harmless(value: object) -> object:
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
