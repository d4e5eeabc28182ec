"""Small sealed records in KV tiers, told apart by numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from novacron.bench.numbered_records import (
    BLOCK_BYTES,
    IDENTITY,
    RECORD_BYTES,
    block_content,
    key_of,
    make_record,
)
from novacron.kv_tiers.record import block_of, is_sound
from novacron.kv_tiers.tier import KVTier

__all__ = [
    "BLOCK_BYTES",
    "IDENTITY",
    "RECORD_BYTES",
    "block_content",
    "held",
    "key_of",
    "make_record",
    "put",
]


def put(tier: KVTier, *numbers: int) -> list[int]:
    """Store those records; returns the numbers of what was dropped for them."""
    dropped = tier.put([make_record(number) for number in numbers]).dropped
    return [int.from_bytes(key, "little") for key in dropped]


def held(tier: KVTier, numbers: Iterable[int]) -> list[int]:
    """Which of them the tier gives back. Raises AssertionError if one is not what was stored."""
    wanted = list(numbers)
    buffers = [np.zeros(RECORD_BYTES, np.uint8) for _ in wanted]
    found = tier.get([key_of(number) for number in wanted], buffers)
    for number, is_there, buffer in zip(wanted, found, buffers, strict=True):
        if is_there:
            assert is_sound(buffer, IDENTITY, key_of(number)), f"block {number} is not sound"
            assert (block_of(buffer) == block_content(number)).all()
    return [number for number, is_there in zip(wanted, found, strict=True) if is_there]
