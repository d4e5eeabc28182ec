"""The answers of replicas about their KV caches, as one. Pure.

Replicas are equal, pins are given to all of them, and the folder on disk is theirs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from novacron.records.cache_orders import CacheAnswer, ClearedCache, PinInfo, PinList

_SHARED_LEVELS: Final = ("disk", "redis", "object")


def merge_answers(answers: Sequence[CacheAnswer]) -> CacheAnswer:
    """To one order, all of the same kind."""
    pins = [answer for answer in answers if isinstance(answer, PinList)]
    cleared = [answer for answer in answers if isinstance(answer, ClearedCache)]
    if len(pins) == len(answers):
        return _merge_pins(pins)
    if len(cleared) == len(answers):
        return _merge_cleared(cleared)
    return answers[0]


def _merge_pins(answers: Sequence[PinList]) -> PinList:
    """What is stored of a pin is that of the replica which has most of it."""
    pins: dict[tuple[str, bool], PinInfo] = {}
    for pin in (pin for answer in answers for pin in answer.pins):
        earlier = pins.get((pin.name, pin.is_public))
        if earlier is None or _num_stored(pin) > _num_stored(earlier):
            pins[pin.name, pin.is_public] = pin
    return PinList(
        pins=tuple(pins.values()),
        num_blocks=max(answer.num_blocks for answer in answers),
        most_blocks=min(answer.most_blocks for answer in answers),
        block_bytes=answers[0].block_bytes,
    )


def _num_stored(pin: PinInfo) -> int:
    return sum(pin.stored_blocks.values())


def _merge_cleared(answers: Sequence[ClearedCache]) -> ClearedCache:
    """Levels that replicas share are counted once, by whoever knew most of them."""
    levels = dict.fromkeys(level for answer in answers for level in answer.num_blocks)
    return ClearedCache(
        {
            level: (max if level in _SHARED_LEVELS else sum)(
                answer.num_blocks.get(level, 0) for answer in answers
            )
            for level in levels
        }
    )
