"""Duties for tests."""

from __future__ import annotations

from novacron.guardians.guardian import Duty
from novacron.guardians.records import Mode, Outcome, Stage


def duty(
    name: str = "guardian",
    *,
    action: Outcome = Outcome.MASK,
    mode: Mode = Mode.ENFORCE,
    timeout_s: float = 1.0,
    is_cached: bool = True,
    stages: frozenset[Stage] = frozenset(Stage),
) -> Duty:
    return Duty(
        name=name,
        stages=stages,
        mode=mode,
        action=action,
        timeout_s=timeout_s,
        is_cached=is_cached,
    )
