"""Lines of PASS, WARN and FAIL, as doctor and validate print them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import click


class Verdict(StrEnum):
    PASS = "PASS"
    WARN = "WARN"  # works, but not as it should
    FAIL = "FAIL"


_COLORS = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and, unless it passed, what to do."""

    verdict: Verdict
    subject: str
    finding: str
    remedy: str = ""


def show(checks: Iterable[Check]) -> int:
    """Print each check as it comes. The exit code: 1 if one failed."""
    worst = 0
    for check in checks:
        verdict = click.style(check.verdict, fg=_COLORS[check.verdict], bold=True)
        click.echo(f"{verdict}  {check.subject}: {check.finding}")
        if check.remedy and check.verdict is not Verdict.PASS:
            click.echo(f"      {check.remedy}")
        worst |= check.verdict is Verdict.FAIL
    return int(worst)
