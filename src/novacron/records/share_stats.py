"""What requests of each named priority have had. Few figures, however many tenants there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

CLASSES: Final = ("critical", "high", "normal", "low")
_FROM: Final = (-15, -5, 5)  # the least number of a class, beside the first


class ClassStats(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Totals since the engine's start, of requests of a named priority and of numbers near it."""

    prompt_tokens: int = 0  # computed
    cached_tokens: int = 0  # of prompts, found instead
    generation_tokens: int = 0
    num_preempted: int = 0
    num_shed: int = 0


class ShareStats(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`classes` in the order of CLASSES. `num_tenants`: with fair shares, those that are there or
    were within the last half minute; one that sends several priorities counts once for each."""

    classes: tuple[ClassStats, ...] = (ClassStats(),) * len(CLASSES)
    num_tenants: int = 0


def class_of(priority: int) -> int:
    """Index into CLASSES of the named priority that a number is nearest to."""
    return sum(priority >= number for number in _FROM)


def sum_of_shares(shares: Sequence[ShareStats]) -> ShareStats:
    names = ClassStats.__struct_fields__
    return ShareStats(
        classes=tuple(
            ClassStats(**{name: sum(getattr(one, name) for one in same) for name in names})
            for same in zip(*(share.classes for share in shares), strict=True)
        ),
        num_tenants=sum(share.num_tenants for share in shares),
    )
