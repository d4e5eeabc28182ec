"""Small sealed records, whose content follows from a number, to try KV tiers with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from novacron.kv_tiers.record import block_of, identity_of, is_sound, record_bytes, seal
from novacron.kv_tiers.tier import Bytes, KVTier, Record
from novacron.records.block import BlockHash
from novacron.records.block_moves import NO_ORIGIN, BlockOrigin

BLOCK_BYTES = 200
RECORD_BYTES = record_bytes(BLOCK_BYTES)
IDENTITY = identity_of(model_version="m", kv_identity="float32", block_size=4)


def key_of(number: int) -> BlockHash:
    return BlockHash(number.to_bytes(16, "little"))


def block_content(number: int) -> Bytes:
    return np.random.default_rng(number).integers(0, 256, BLOCK_BYTES, np.uint8)


def make_record(number: int, origin: BlockOrigin = NO_ORIGIN) -> Record:
    data = np.zeros(RECORD_BYTES, np.uint8)
    block_of(data)[:] = block_content(number)
    seal(data, IDENTITY, key_of(number))
    return Record(key_of(number), data, origin)


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
